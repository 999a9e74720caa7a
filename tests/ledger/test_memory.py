"""Memory does not grow with what lies on the disk: neither reading nor opening holds more than its windows."""

import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct

import pytest
from google_crc32c import extend, value

import ledger.files.scan
import ledger.files.source
import ledger.reader
from ledger import Lateness, LedgerReader
from ledger.format import PAYLOAD_BYTES_MAX, TYPE_RECORD, seed_of
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import NOON, TODAY, Answers, UnsyncedDisk, crash_image, one_batch, reopened, segment_of

KIB = 1024
WINDOW_BYTES = 64 * KIB
SEVERAL_WINDOWS = 1200 * KIB  # the HEADERs, a MiB of a piece being copied or hashed, the lists of a stride
SEGMENT_RECORDS = 8_000  # 8.4 MiB


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger.files.source, "_WINDOW_BYTES", WINDOW_BYTES)
    monkeypatch.setattr(ledger.files.scan, "_RESYNC_WINDOW", WINDOW_BYTES)
    monkeypatch.setattr(ledger.reader, "_STRIDE_BYTES", WINDOW_BYTES)


@pytest.fixture
def large(tmp_path: Path, open_ledger: OpenLedger) -> Path:
    """One segment as a kill leaves it: no FOOTER."""
    answers = Answers()
    where = tmp_path / "to crash"
    opened = open_ledger(answers, where, UnsyncedDisk())
    payload = bytes(range(256)) * 4
    with one_batch(opened):
        for number in range(SEGMENT_RECORDS):
            opened.append(payload, NOON, number)
    answers.positions(*range(SEGMENT_RECORDS))
    return crash_image(where, tmp_path / "crashed")


@contextmanager
def peak() -> Iterator[Callable[[], int]]:
    """How many bytes were held at most since the block began."""
    tracemalloc.start()
    try:
        began, _ = tracemalloc.get_traced_memory()
        yield lambda: tracemalloc.get_traced_memory()[1] - began
    finally:
        tracemalloc.stop()


def append_bytes(directory: Path, data: bytes) -> None:
    with segment_of(directory).open("ab") as file:
        file.write(data)


@pytest.mark.usefixtures("small_windows")
def test_opening_and_reading_a_large_segment_holds_no_more_than_a_few_windows(large: Path) -> None:
    with peak() as held_bytes:
        info = reopened(large)
        assert (info.record_count, info.damaged) == (SEGMENT_RECORDS, False)
        assert sum(1 for _ in LedgerReader(large).records(TODAY)) == SEGMENT_RECORDS
        assert sum(1 for _ in LedgerReader(large).emitted(0, 2**62, Lateness.BOTH)) == SEGMENT_RECORDS
        assert held_bytes() < SEVERAL_WINDOWS + 1024 * KIB


@pytest.mark.usefixtures("small_windows")
def test_a_large_torn_tail_is_copied_aside_without_being_held(large: Path) -> None:
    tail_bytes = 32 * 1024 * KIB
    os.truncate(segment_of(large), segment_of(large).stat().st_size + tail_bytes)  # zeros, as after a power cut
    with peak() as held_bytes:
        assert reopened(large).record_count == SEGMENT_RECORDS
        assert held_bytes() < tail_bytes // 8
    assert [path.stat().st_size for path in LedgerReader(large).torn_files()] == [tail_bytes]


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("length", [PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX + 1, 0xFFFF_FFFF])
def test_a_huge_length_field_costs_at_most_the_largest_payload(large: Path, length: int) -> None:
    segment_id = LedgerReader(large).partition(TODAY).segments[0].segment_id
    body = Struct("<BBHIIQQqq").pack(TYPE_RECORD, 0, 0, length, value(b""), 1 << 32 | SEGMENT_RECORDS + 1, 0, 0, 0)
    append_bytes(large, extend(seed_of(segment_id), body).to_bytes(4, "little") + body + bytes(6 * 1024 * KIB))
    with peak() as held_bytes:
        assert reopened(large).record_count == SEGMENT_RECORDS
        assert held_bytes() < 2 * PAYLOAD_BYTES_MAX + SEVERAL_WINDOWS
