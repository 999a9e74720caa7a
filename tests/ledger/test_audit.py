"""The three ways in which the HTTP system before this one lost signals that it had acknowledged, each as a test."""

import random
import subprocess
from pathlib import Path

import pytest

from ledger import Ledger, LedgerLocked, LedgerSettings
from tests.ledger.faults import (
    NOON,
    TODAY,
    Answers,
    append_each,
    at_noon,
    crash_image,
    cut_tail,
    flip_byte,
    one_batch,
    segment_of,
)
from tests.ledger.test_processes import ROOT, command

SETTINGS = LedgerSettings(free_bytes_min=0, idle_mark_s=3600)
THOUSAND = [f"signal-{number}".encode() for number in range(1000)]


def append_all(ledger: Ledger, answers: Answers, payloads: list[bytes]) -> list[int]:
    with one_batch(ledger):
        for payload in payloads:
            ledger.append(payload, NOON, payload)
    return [position.sequence for position in answers.positions(*payloads)]


def held(ledger: Ledger) -> list[bytes]:
    return [record.payload for record in ledger.reader().records(TODAY)]


def test_a_torn_tail_costs_none_of_the_thousand_writes_after_it(tmp_path: Path) -> None:
    """It lost 1,000 of 1,000: they were appended behind the torn frame, where no reader came."""
    answers = Answers()
    with Ledger.open(tmp_path / "ledger", on_commit=answers, settings=SETTINGS, now=at_noon) as ledger:
        append_each(ledger, answers, [b"first", b"torn"])
        image = crash_image(tmp_path / "ledger", tmp_path / "image")
    cut_tail(segment_of(image), 3)
    with Ledger.open(image, on_commit=answers, settings=SETTINGS, now=at_noon) as ledger:
        append_all(ledger, answers, THOUSAND)
        assert held(ledger) == [b"first", *THOUSAND]
    with Ledger.open(image, on_commit=answers, settings=SETTINGS, now=at_noon) as ledger:
        assert held(ledger) == [b"first", *THOUSAND]
        assert not ledger.partition(TODAY).damaged


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "crashed"])
def test_a_flipped_byte_costs_exactly_one_record(tmp_path: Path, is_closed: bool, seed: int) -> None:
    """It lost half a segment: a length that was not checked led the reader astray."""
    chance = random.Random(seed)
    answers = Answers()
    with Ledger.open(tmp_path / "ledger", on_commit=answers, settings=SETTINGS, now=at_noon) as ledger:
        append_all(ledger, answers, THOUSAND[:-1])
        append_all(ledger, answers, THOUSAND[-1:])  # its frame says that the others were durable
        image = crash_image(tmp_path / "ledger", tmp_path / "image")
    directory = tmp_path / "ledger" if is_closed else image
    hit = chance.randrange(999)
    data = segment_of(directory).read_bytes()
    start, end = (data.index(THOUSAND[number]) - 48 for number in (hit, hit + 1))
    flip_byte(segment_of(directory), chance.randrange(start, end))
    with Ledger.open(directory, on_commit=Answers(), settings=SETTINGS, now=at_noon) as ledger:
        assert held(ledger) == [*THOUSAND[:hit], *THOUSAND[hit + 1 :]], seed
        assert ledger.partition(TODAY).segments[0].damaged == ((hit + 1, hit + 1),), seed


def test_the_second_writer_is_refused_and_no_sequence_is_given_twice(tmp_path: Path) -> None:
    """It gave 10 writes of two writers 6 distinct sequences."""
    directory = tmp_path / "ledger"
    answers = Answers()
    sequences: list[int] = []
    for turn in range(5):
        payloads = [f"{turn}-{number}".encode() for number in range(2)]
        with Ledger.open(directory, on_commit=answers, settings=SETTINGS, now=at_noon) as ledger:
            sequences += append_all(ledger, answers, payloads[:1])
            with pytest.raises(LedgerLocked):
                Ledger.open(directory, on_commit=Answers(), settings=SETTINGS, now=at_noon)
            other = subprocess.run(command(directory, "other"), cwd=ROOT, capture_output=True, timeout=30, check=False)
            assert other.returncode == 3
            sequences += append_all(ledger, answers, payloads[1:])
    assert len(sequences) == 10
    assert sequences == sorted(set(sequences))
    with Ledger.open(directory, on_commit=Answers(), settings=SETTINGS, now=at_noon) as ledger:
        assert [record.position.sequence for record in ledger.reader().records(TODAY)] == sequences
