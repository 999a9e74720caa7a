"""The committed vectors: an auditor needs sha256sum and nothing of ours to reproduce an id.

Each folder of vectors/ holds observation.txtpb (what the source said), canonical.json (its canonical form, byte for
byte), digest-input.txt (what the digest is the hash of) and ids.txt (what must come of it).
"""

import subprocess
from pathlib import Path

import pytest
from google.protobuf import text_format

from contract.identity import ack_id, canonical_observation, identity, input_event_hash
from omen.v1.observation_pb2 import Observation
from tests.contract.samples import full_observation

VECTORS = sorted(path for path in (Path(__file__).parent / "vectors").iterdir() if path.is_dir())
RULESET = "1.0.0"
each_vector = pytest.mark.parametrize("folder", VECTORS, ids=lambda folder: folder.name)


def observation_of(folder: Path) -> Observation:
    return text_format.Parse((folder / "observation.txtpb").read_text("utf-8"), Observation())


def ids_of(folder: Path) -> dict[str, str]:
    lines = (folder / "ids.txt").read_text("utf-8").splitlines()
    return dict(line.split(" = ", 1) for line in lines)


def sha256sum(path: Path) -> str:
    done = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
    return done.stdout.split()[0]


def test_there_are_vectors_and_one_has_every_field() -> None:
    observations = [observation_of(folder) for folder in VECTORS]
    assert len(observations) >= 3
    assert full_observation() in observations


@each_vector
def test_the_formulas_reproduce_a_vector(folder: Path) -> None:
    observation, expected = observation_of(folder), ids_of(folder)
    canonical = canonical_observation(observation)
    assert canonical == (folder / "canonical.json").read_bytes()
    found_hash = input_event_hash(canonical)
    ids = identity(observation.source_event_id, found_hash, RULESET)
    assert expected == {
        "input_event_hash": found_hash,
        "digest": ids.digest,
        "deterministic_trace_id": ids.trace_id,
        "signal_id": ids.signal_id,
        "ack_id": ack_id(ids.signal_id, found_hash),
    }


@each_vector
def test_sha256sum_alone_reproduces_a_vector(folder: Path) -> None:
    expected = ids_of(folder)
    assert expected["input_event_hash"] == f"sha256:{sha256sum(folder / 'canonical.json')}"
    digest = sha256sum(folder / "digest-input.txt")
    source_event_id = observation_of(folder).source_event_id
    joined = (folder / "digest-input.txt").read_text("utf-8")
    assert joined == f"{source_event_id}|{expected['input_event_hash']}|{RULESET}"
    assert expected["digest"] == digest
    assert expected["deterministic_trace_id"] == digest[:16]
    assert expected["signal_id"] == f"OMEN-{digest[:12].upper()}"
