"""An observation in: the rules run; a rejection is answered with its reasons, anything else becomes a signal and is
emitted. Every door that takes observations comes through here.
"""

import structlog

from contract.validation import check_observation
from omen.v1 import pipeline_service_pb2 as pb
from omen.v1.observation_pb2 import Observation
from omen_server.domain import process
from omen_server.emission import Emitter, Wait

log = structlog.get_logger(__name__)


class Intake:
    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter

    async def take(self, observation: Observation, wait: Wait) -> pb.ProcessResponse:
        """Raises ContractError: INVALID_OBSERVATION, and whatever `Emitter.emit` raises."""
        response = judge(observation)
        if response.HasField("rejection"):
            rejection = response.rejection
            log.info("observation_rejected", source_event_id=rejection.source_event_id, rule=rejection.rule_name)
        else:
            response.emission.CopyFrom(await self._emitter.emit(response.event, wait))
        return response


def judge(observation: Observation) -> pb.ProcessResponse:
    """What the rules make of an observation: a rejection, or the event that is to be emitted.

    Raises ContractError: INVALID_OBSERVATION.
    """
    check_observation(observation)
    result = process(observation)
    if isinstance(result, pb.Rejection):
        return pb.ProcessResponse(rejection=result)
    return pb.ProcessResponse(event=result)
