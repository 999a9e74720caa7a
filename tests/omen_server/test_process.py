"""Process: an observation becomes a signal that is emitted, or a rejection with every rule's verdict."""

from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
from google.protobuf.json_format import Parse

from contract.errors import Reason
from contract.identity import canonical_observation, identity, input_event_hash
from omen.v1 import pipeline_service_pb2 as pb
from omen.v1 import signal_service_pb2 as signal_pb
from omen.v1.observation_pb2 import Observation
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_pb2 import ValidationScore
from omen_server.domain import RULESET, RULESET_VERSION, process
from tests.contract.samples import full_observation
from tests.omen_server.running import DELIVERED, LEDGER_ONLY, Omen, closed_port, omen, refusal, riskcast, seconds

OBSERVATIONS = Path(__file__).parents[2] / "omen_server" / "demo" / "observations.ndjson"


# Every rule of the ruleset, and what they add up to.
RULES = [*(rule.name for rule in RULESET.rules), "confidence"]


def rules_of(verdicts: Sequence[ValidationScore]) -> list[str]:
    return [verdict.rule_name for verdict in verdicts]


def rejected() -> Observation:
    """One that a rule objects to."""
    observation = full_observation()
    observation.title, observation.description = "Will the band play again?", ""
    observation.liquidity_usd = 0.0
    observation.ClearField("keywords")
    observation.ClearField("locations")
    assert isinstance(process(observation), pb.Rejection)
    return observation


def accepted() -> Observation:
    """The first of the demo's observations that becomes a signal."""
    observations = [Parse(line, Observation()) for line in OBSERVATIONS.read_text("utf-8").splitlines() if line.strip()]
    return next(each for each in observations if isinstance(process(each), SignalEvent))


async def processed(server: Omen, observation: Observation, **request: object) -> pb.ProcessResponse:
    answer: pb.ProcessResponse = await server.pipeline.Process(
        pb.ProcessRequest(observation=observation, **request)  # type: ignore[arg-type]
    )
    return answer


async def test_an_observation_becomes_a_signal_that_is_stored_in_ledger_and_riskcast(tmp_path: Path) -> None:
    observation = accepted()
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        answer = await processed(server, observation)
        [record] = await server.records()
        stored = await store.stored(answer.emission.signal_id)
    canonical = canonical_observation(observation)
    ids = identity(observation.source_event_id, input_event_hash(canonical), RULESET_VERSION)
    assert (answer.emission.status, answer.emission.signal_id) == (DELIVERED, ids.signal_id)
    assert stored.stored_event == record.event == answer.event.SerializeToString()
    assert answer.event.canonical_observation == canonical
    assert rules_of(answer.event.signal.validation_scores) == RULES


async def test_the_same_observation_twice_is_one_signal(tmp_path: Path) -> None:
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        first, second = [await processed(server, accepted()) for _ in range(2)]
        assert await store.count() == 1
    assert (first.emission.status, second.emission.status) == (DELIVERED, signal_pb.EMISSION_STATUS_DUPLICATE)
    assert first.emission.ack_id == second.emission.ack_id


async def test_a_rejection_names_the_rule_and_every_verdict_and_nothing_is_stored(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        answer = await processed(server, rejected())
        assert await server.records() == []
    rejection = answer.rejection
    assert not answer.HasField("emission")
    assert not answer.HasField("event")
    assert rejection.source_event_id == rejected().source_event_id
    assert rules_of(rejection.verdicts) == RULES
    objecting = {verdict.rule_name: verdict.reasoning for verdict in rejection.verdicts}
    assert rejection.reasoning == objecting[rejection.rule_name]
    assert rejection.input_event_hash == input_event_hash(canonical_observation(rejected()))


async def test_a_dry_run_answers_the_signal_and_stores_nothing(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        answer = await processed(server, accepted(), dry_run=True)
        turned_down = await processed(server, rejected(), dry_run=True)
        assert await server.records() == []
    assert answer.event == process(accepted())
    assert not answer.HasField("emission")
    assert turned_down.rejection == process(rejected())


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_bad_observation_is_refused_by_its_fields(tmp_path: Path, dry_run: bool) -> None:
    bad = accepted()
    bad.title, bad.probability, bad.source_event_id = "", 2.0, "a|b"
    async with omen(tmp_path, closed_port()) as server:
        request = pb.ProcessRequest(observation=bad, dry_run=dry_run)
        error = await refusal(server.pipeline.Process(request))
        assert await server.records() == []
    assert (error.reason, error.code) == (Reason.INVALID_OBSERVATION, grpc.StatusCode.INVALID_ARGUMENT.value[0])
    assert {violation.field for violation in error.violations} == {"title", "probability", "source_event_id"}


async def test_waiting_is_asked_for_as_in_emit(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        answer = await processed(server, accepted(), wait_for=signal_pb.WAIT_FOR_LEDGER)
        request = pb.ProcessRequest(observation=accepted(), delivery_timeout=seconds(61))
        error = await refusal(server.pipeline.Process(request))
        assert len(await server.records()) == 1
    assert (answer.emission.status, answer.emission.ledger_only_reason) == (LEDGER_ONLY, "")
    assert error.violations[0].field == "delivery_timeout"
