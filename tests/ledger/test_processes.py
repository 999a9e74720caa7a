"""Two writers, writers killed with -9, readers beside them: with real processes."""

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger import Ledger, LedgerLocked, LedgerReader, LedgerSettings
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import Answers, append_each, at_noon
from tests.ledger.writer_process import payload

ROOT = Path(__file__).parents[2]


def command(directory: Path, prefix: str) -> list[str]:
    return [sys.executable, "-m", "tests.ledger.writer_process", str(directory), prefix]


@contextmanager
def writer_process(directory: Path, prefix: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command(directory, prefix), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def acknowledged_until(process: subprocess.Popen[str], count: int) -> list[int]:
    """Kills with -9 after `count` acknowledgements; those that were on their way are acknowledgements too."""
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(count)]
    process.kill()
    rest = process.stdout.read()
    lines += rest[: rest.rfind("\n") + 1].splitlines()
    return [int(line) for line in lines]


def payloads_of(reader: LedgerReader) -> list[bytes]:
    return [record.payload for info in reader.partitions() for record in reader.records(info.name)]


def test_a_second_writer_in_the_same_process_is_refused_at_once(open_ledger: OpenLedger, directory: Path) -> None:
    answers = Answers()
    first = open_ledger(answers)
    with pytest.raises(LedgerLocked, match=r"^[^\n]*another writer[^\n]*$"):
        open_ledger(Answers())
    append_each(first, answers, [b"still writing"])
    first.close()
    append_each(open_ledger(answers), answers, [b"after close"])


def test_a_second_writer_in_another_process_is_refused_at_once(open_ledger: OpenLedger, directory: Path) -> None:
    open_ledger(Answers())
    refused = subprocess.run(
        command(directory, "second"), cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert refused.returncode == 3
    assert "another writer holds LOCK" in refused.stderr


KILLS = 20
SOAK_KILLS = 1000


def killed_under_load(directory: Path, kills: int, seed: int) -> None:
    """Each writer is killed at a moment of its own, and recovered by the next one."""
    chance = random.Random(seed)
    acknowledged = []
    for run in range(kills):
        with writer_process(directory, f"run{run}") as process:
            numbers = acknowledged_until(process, chance.choice((1, 40, chance.randrange(1, 2000))))
        assert numbers == list(range(1, len(numbers) + 1)), (seed, run)
        acknowledged.append(len(numbers))
    settings = LedgerSettings(free_bytes_min=0)
    with Ledger.open(directory, on_commit=Answers(), settings=settings, now=at_noon) as ledger:
        assert not any(info.damaged for info in ledger.partitions()), seed
        assert_each_run_kept(payloads_of(ledger.reader()), acknowledged, seed)


def assert_each_run_kept(held: list[bytes], acknowledged: list[int], seed: int) -> None:
    """One after the other, each as a prefix of what it wrote that holds all it was told is durable."""
    at = 0
    for run, count in enumerate(acknowledged):
        prefix = f"run{run}"
        written = [entry for entry in held[at:] if entry.startswith(prefix.encode() + b"-")]
        assert held[at : at + len(written)] == written, (seed, run)
        assert written == [payload(prefix, number) for number in range(1, len(written) + 1)], (seed, run)
        assert len(written) >= count, (seed, run)
        at += len(written)
    assert at == len(held), seed


def test_killed_with_9_under_load_again_and_again_every_acknowledged_record_is_readable(directory: Path) -> None:
    killed_under_load(directory, KILLS, seed=9)


@pytest.mark.soak
def test_killed_with_9_a_thousand_times(directory: Path, soak_seed: int) -> None:
    killed_under_load(directory, SOAK_KILLS, soak_seed)


def test_nothing_is_stale_after_kill_9(open_ledger: OpenLedger, directory: Path) -> None:
    with writer_process(directory, "killed") as process:
        acknowledged = len(acknowledged_until(process, 100))
    assert (directory / "LOCK").exists()
    answers = Answers()
    ledger = open_ledger(answers)
    append_each(ledger, answers, [b"at once"])
    assert len(payloads_of(ledger.reader())) > acknowledged


def test_a_reader_beside_a_live_writer_sees_a_growing_prefix_of_what_recovery_keeps(directory: Path) -> None:
    with writer_process(directory, "live") as process:
        assert process.stdout
        process.stdout.readline()
        reader = LedgerReader(directory)
        counts: list[int] = []
        while not counts or counts[-1] < 1500:  # three segments
            seen = payloads_of(reader)
            assert seen == [payload("live", number) for number in range(1, len(seen) + 1)]
            counts.append(len(seen))
        assert counts == sorted(counts)
        assert counts[-1] <= len(acknowledged_until(process, 1)) + 64 + 1
    settings = LedgerSettings(free_bytes_min=0)
    with Ledger.open(directory, on_commit=Answers(), settings=settings, now=at_noon) as ledger:
        assert len(payloads_of(ledger.reader())) >= counts[-1]
