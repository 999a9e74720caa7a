"""Two writers, writers killed with -9, readers beside them: with real processes."""

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


def test_killed_with_9_under_load_again_and_again_every_acknowledged_record_is_readable(directory: Path) -> None:
    expected: dict[str, list[int]] = {}
    for run, count in enumerate((1, 40, 700, 1300, 3000)):
        with writer_process(directory, f"run{run}") as process:
            expected[f"run{run}"] = acknowledged_until(process, count)
    settings = LedgerSettings(free_bytes_min=0)
    with Ledger.open(directory, on_commit=Answers(), settings=settings, now=at_noon) as ledger:
        held = payloads_of(ledger.reader())
        assert not any(info.damaged for info in ledger.partitions())
    at = 0
    for prefix, numbers in expected.items():
        assert numbers == list(range(1, len(numbers) + 1))
        written = [entry for entry in held if entry.startswith(prefix.encode() + b"-")]
        assert written[: len(numbers)] == [payload(prefix, number) for number in numbers]
        assert written == [payload(prefix, number) for number in range(1, len(written) + 1)]
        assert held[at : at + len(written)] == written
        at += len(written)
    assert at == len(held)


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
