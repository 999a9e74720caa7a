"""Reading by emitted_at: exactly the records of the range, at a cost that follows what is returned."""

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ledger import Disk, Lateness, Ledger, LedgerReader, Record
from ledger.times import microseconds_of
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import TODAY, Answers, append_each, flip_byte, one_batch, segment_of

MIDNIGHT = datetime(2026, 1, 29, tzinfo=UTC)
DAY_BEFORE = MIDNIGHT - timedelta(days=1)
ALL_TIME = (-(2**62), 2**62)
Reading = Callable[[Ledger, Path, Disk], LedgerReader]


def from_memory(ledger: Ledger, directory: Path, disk: Disk) -> LedgerReader:
    return ledger.reader()


def from_files(ledger: Ledger, directory: Path, disk: Disk) -> LedgerReader:
    return LedgerReader(directory, disk=disk)


both_ways = pytest.mark.parametrize("reading", [from_memory, from_files])


class CountingDisk(Disk):
    def __init__(self) -> None:
        self.bytes_read: Counter[str] = Counter()  # by partition

    def read(self, path: Path, offset: int, size: int) -> bytes:
        data = super().read(path, offset, size)
        self.bytes_read[path.parent.name] += len(data)
        return data


def append_at(ledger: Ledger, answers: Answers, moments: list[datetime]) -> None:
    """One batch of 1 KiB payloads that begin with their own moment."""
    payloads = [moment.isoformat().encode().ljust(1024, b".") for moment in moments]
    with one_batch(ledger):
        for payload, moment in zip(payloads, moments, strict=True):
            ledger.append(payload, moment, payload)
    answers.positions(*payloads)


def minutes_of(day: datetime, count: int) -> list[datetime]:
    return [day + timedelta(minutes=number) for number in range(count)]


def within(records: list[Record], first: int, before: int, partitions: tuple[str, ...]) -> list[bytes]:
    return [
        record.payload
        for partition in partitions
        for record in records
        if record.position.partition == partition and first <= record.emitted_at < before
    ]


@both_ways
def test_a_range_returns_exactly_what_was_emitted_in_it_main_late_or_both(
    open_ledger: OpenLedger, directory: Path, reading: Reading
) -> None:
    seed = 20260129
    chance = random.Random(seed)
    answers, clock = Answers(), [DAY_BEFORE + timedelta(hours=12)]
    ledger = open_ledger(answers, now=lambda: clock[0], segment_records_max=7)
    moments = [DAY_BEFORE + timedelta(seconds=second) for second in chance.sample(range(2 * 86_400), 160)]
    append_at(ledger, answers, moments[:80])
    clock[0] = MIDNIGHT + timedelta(hours=12)  # the day before takes late records only from here on
    append_at(ledger, answers, moments[80:])
    ledger.close()
    reader = reading(ledger, directory, Disk())
    names = tuple(info.name for info in reader.partitions())
    assert names == ("2026-01-28", "2026-01-28-late", TODAY)
    everything = [record for name in names for record in reader.records(name)]
    assert sorted(record.emitted_at for record in everything) == sorted(map(microseconds_of, moments))
    edges = [microseconds_of(moment) for moment in (*moments[:20], DAY_BEFORE, MIDNIGHT)]
    for first, before in [(*sorted(chance.sample(edges, 2)),) for _ in range(40)] + [ALL_TIME, (edges[0], edges[0])]:
        for lateness, meant in ((Lateness.MAIN, names[::2]), (Lateness.LATE, names[1:2]), (Lateness.BOTH, names)):
            found = [record.payload for record in reader.emitted(first, before, lateness)]
            assert found == within(everything, first, before, meant), (seed, first, before, lateness)


@both_ways
def test_what_is_read_for_a_range_follows_what_is_returned(
    open_ledger: OpenLedger, directory: Path, reading: Reading
) -> None:
    disk, answers = CountingDisk(), Answers()
    ledger = open_ledger(answers, disk=disk, segment_records_max=60)
    append_at(ledger, answers, minutes_of(MIDNIGHT, 1200))
    append_at(ledger, answers, minutes_of(MIDNIGHT + timedelta(days=1), 120))
    ledger.close()
    reader = reading(ledger, directory, disk)
    segments = reader.partition(TODAY).segments
    assert len(segments) == 20
    before = Counter(disk.bytes_read)
    hour = [microseconds_of(MIDNIGHT + timedelta(hours=hours)) for hours in (7, 8)]
    assert len(list(reader.emitted(hour[0], hour[1], Lateness.BOTH))) == 60
    read = disk.bytes_read - before
    heads_and_footers = 80 * 1024 * len(segments) if reading is from_files else 1024 * len(segments)
    assert read[TODAY] < segments[7].byte_length * 1.5 + heads_and_footers
    assert {name for name, count in read.items() if count} == {TODAY}


@both_ways
def test_a_segment_without_a_readable_footer_is_read_rather_than_left_out(
    open_ledger: OpenLedger, directory: Path, reading: Reading
) -> None:
    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=60)
    append_at(ledger, answers, minutes_of(MIDNIGHT, 180))
    ledger.close()
    flip_byte(segment_of(directory), ledger.partition(TODAY).segments[0].byte_length + 60)
    assert sum(1 for _ in reading(ledger, directory, Disk()).emitted(*ALL_TIME, Lateness.MAIN)) == 180
    early = list(reading(ledger, directory, Disk()).emitted(0, microseconds_of(MIDNIGHT) + 1, Lateness.MAIN))
    assert [record.position.record_index for record in early] == [1]


@both_ways
def test_what_a_live_segment_has_made_durable_is_found_at_once(
    open_ledger: OpenLedger, directory: Path, reading: Reading
) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    append_each(ledger, answers, [b"one", b"two"], MIDNIGHT)
    reader = reading(ledger, directory, Disk())
    midnight = microseconds_of(MIDNIGHT)
    seen = [record.payload for record in reader.emitted(midnight, midnight + 1, Lateness.MAIN)]
    assert seen in ([b"one", b"two"], [b"one"])  # from outside, as far as the files vouch for it
    assert list(reader.emitted(midnight + 1, midnight + 2, Lateness.MAIN)) == []
    assert list(reader.emitted(midnight, midnight + 1, Lateness.LATE)) == []


@both_ways
def test_a_sequence_below_the_first_segment_means_from_the_beginning(
    open_ledger: OpenLedger, directory: Path, reading: Reading
) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    append_each(ledger, answers, [b"one", b"two", b"three"])
    ledger.close()
    reader = reading(ledger, directory, Disk())
    for sequence in (0, 1, 2, 2**32 - 1, 2**32, 2**32 + 1):
        records = [record.payload for record in reader.records(TODAY, from_sequence=sequence)]
        assert records == [b"one", b"two", b"three"], sequence
