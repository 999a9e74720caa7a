"""The observations of the demo, and the ids that their signals have in every run, on any machine.

    .venv/bin/python -m omen_server.demo.expected > omen_server/demo/expected.json

writes the ids anew, for whoever changed the observations or the rules and means it.
"""

import json
import sys
from importlib.resources import files

from google.protobuf.json_format import Parse

from omen.v1.observation_pb2 import Observation
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.domain import process


def observations() -> list[Observation]:
    lines = files("omen_server.demo").joinpath("observations.ndjson").read_text("utf-8").splitlines()
    return [Parse(line, Observation()) for line in lines if line.strip()]


def expected_ids() -> dict[str, str]:
    """The signal_id of each source_event_id that becomes a signal, as committed."""
    ids: dict[str, str] = json.loads(files("omen_server.demo").joinpath("expected.json").read_text("utf-8"))
    return ids


def computed_ids() -> dict[str, str]:
    """The same, by today's rules."""
    results = [process(observation) for observation in observations()]
    return {event.source_event_id: event.signal_id for event in results if isinstance(event, SignalEvent)}


def another(observation: Observation, name: str) -> Observation:
    """The same text under a question of its own: another fact, with ids of its own."""
    other = Observation()
    other.CopyFrom(observation)
    other.source_event_id = f"{observation.source_event_id}:{name}"
    return other


def main() -> None:
    sys.stdout.write(json.dumps(computed_ids(), indent=2) + "\n")


if __name__ == "__main__":
    main()
