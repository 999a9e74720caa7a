"""Reading many records at once against stepping through them one by one: whatever the bytes, both tell the same."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

import pytest
from google_crc32c import extend, value
from hypothesis import example, given, settings
from hypothesis import strategies as st

import ledger.files.source
from ledger import Disk, FormatUnsupported
from ledger.files.scan import Frame, Gap, Scan, Walk, scan
from ledger.files.source import Source
from ledger.format import (
    HEADER_BYTES,
    PAYLOAD_BYTES_MAX,
    TYPE_COMMIT_MARK,
    TYPE_FOOTER,
    TYPE_HEADER,
    TYPE_RECORD,
    WholeRecord,
    seed_of,
)
from ledger.positions import RECORD_INDEX_MAX, sequence_of

ORDINAL = 3
SEED = seed_of(b"sixteen bytes id")
FOREIGN_SEED = seed_of(b"sixteen other id")
BODY = Struct("<BBHIIQQqq")
UNKNOWN_SKIPPED, UNKNOWN_CRITICAL = 0x7F, 0xFF


@dataclass(frozen=True)
class Sketch:
    """A frame whose header CRC holds, in which anything else may be wrong."""

    payload: bytes = b"payload"
    kind: int = TYPE_RECORD
    flags: int = 0
    reserved: int = 0
    seed: int = SEED
    index_step: int = 1  # from the record before
    ordinal: int = ORDINAL
    durable_from_here: int = 0
    length_added: int = 0
    payload_xor: int = 0
    padding: int = 0
    is_numbered: bool = False  # though it is no RECORD

    def encoded(self, offset: int, last_index: int) -> bytes:
        index = max(last_index + self.index_step, 0)
        is_numbered = self.kind == TYPE_RECORD or self.is_numbered
        sequence = sequence_of(self.ordinal, index) if is_numbered else 0
        length = max(len(self.payload) + self.length_added, 0)
        durable = max(offset + self.durable_from_here, 0)
        payload_crc = value(self.payload) ^ self.payload_xor
        body = BODY.pack(self.kind, self.flags, self.reserved, length, payload_crc, sequence, durable, 7, index)
        crc = int(extend(self.seed, body))
        return crc.to_bytes(4, "little") + body + self.payload + bytes([self.padding]) * (-len(self.payload) % 8)


def one_wrong(**values: st.SearchStrategy[int]) -> st.SearchStrategy[Sketch]:
    payloads = st.binary(max_size=40)
    return st.one_of(*(st.builds(Sketch, payload=payloads, **{name: given_}) for name, given_ in values.items()))


sketches = st.one_of(
    st.builds(Sketch, payload=st.binary(max_size=300), flags=st.integers(0, 255)),
    one_wrong(
        kind=st.sampled_from([0, TYPE_COMMIT_MARK, TYPE_HEADER, TYPE_FOOTER, UNKNOWN_SKIPPED, UNKNOWN_CRITICAL]),
        reserved=st.just(1),
        seed=st.just(FOREIGN_SEED),
        index_step=st.sampled_from([-1, 0, 2, 3, 5, RECORD_INDEX_MAX]),
        ordinal=st.sampled_from([ORDINAL - 1, ORDINAL + 1]),
        durable_from_here=st.sampled_from([-1000, 8]),
        length_added=st.sampled_from([-1, 1, 8, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX + 1]),
        payload_xor=st.just(1),
        padding=st.just(1),
    ),
    st.builds(Sketch, kind=st.sampled_from([TYPE_COMMIT_MARK, UNKNOWN_SKIPPED]), is_numbered=st.just(True)),
)
# The highest index there is, then what would come next if indexes ran on into the next ordinal.
LAST_INDEX = [Sketch(index_step=RECORD_INDEX_MAX), Sketch(ordinal=ORDINAL + 1, index_step=-RECORD_INDEX_MAX)]
flips = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=3)


def segment(frames: list[Sketch], changes: list[tuple[float, int]], tail: bytes) -> bytes:
    data, index = b"", 0
    for sketch in frames:
        data += sketch.encoded(len(data), index)
        if sketch.kind == TYPE_RECORD:
            index = min(max(index + sketch.index_step, 0), RECORD_INDEX_MAX)
    rotten = bytearray(data)
    for where, mask in changes:
        if rotten:
            rotten[int(where * len(rotten))] ^= mask
    return bytes(rotten) + tail


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def by_steps(walk: Walk, end: int) -> Iterator[Frame | Gap]:
    while (met := walk.step(end)) is not None:
        yield met


def many_at_once(walk: Walk, end: int) -> Iterator[WholeRecord | Frame | Gap]:
    while met := walk.records(end) or walk.step(end):
        if isinstance(met, list):
            yield from met
        else:
            yield met


def one_step(walk: Walk, end: int) -> object:
    try:
        return walk.step(end)
    except FormatUnsupported as error:
        return str(error)


def told(met: Iterator[WholeRecord | Frame | Gap]) -> list[object]:
    """A RECORD frame as the record it is, and how it ended."""
    found: list[object] = []
    try:
        for each in met:
            is_record = isinstance(each, Frame) and each.header.kind == TYPE_RECORD
            found.append(each.record if is_record and isinstance(each, Frame) else each)
    except FormatUnsupported as error:
        found.append(str(error))
    return found


def scanned_by_steps(walk: Walk, end: int) -> Scan:
    gathered = Scan(end, walk.last_index, served=walk.last_index)
    while gathered.footer is None and (met := walk.step(end)):
        gathered.add(met)
    return gathered


def outcome(how: Callable[[Walk, int], Scan], path: Path, end: int) -> Scan | str:
    try:
        return how(Walk(Source(Disk(), path), SEED, ORDINAL, 0), end)
    except FormatUnsupported as error:
        return str(error)


def believed(frames: list[Sketch], damaged: int) -> list[int]:
    """The indexes that a walk finds, once the header of the frame at that place is zeros."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "segment"
        data = bytearray(segment(frames, [], b""))
        start = len(segment(frames[:damaged], [], b""))
        data[start : start + HEADER_BYTES] = bytes(HEADER_BYTES)
        path.write_bytes(data)
        met = by_steps(Walk(Source(Disk(), path), SEED, ORDINAL, 0), len(data))
        return [each.record_index for each in met if isinstance(each, Frame) and each.header.kind == TYPE_RECORD]


@pytest.mark.parametrize(("payload_bytes", "missing"), [(0, 1), (40, 1), (48, 2), (88, 2), (96, 3), (137, 4)])
def test_so_many_records_can_be_missing_as_there_is_room_for(payload_bytes: int, missing: int) -> None:
    gone = Sketch(payload=bytes(payload_bytes))
    for claimed in range(1, missing + 3):
        after = Sketch(index_step=claimed)  # skips all but one of them
        found = believed([Sketch(), gone, after], damaged=1)
        assert found == ([1, 2 + claimed] if claimed <= missing else [1]), claimed


def test_an_index_that_jumps_where_nothing_is_missing_is_not_believed() -> None:
    jump = Sketch(index_step=2)
    back = Sketch(index_step=-1)  # the one that was skipped
    assert believed([Sketch(), jump, back, Sketch(), Sketch()], damaged=4) == [1, 2, 3]


@settings(max_examples=600, derandomize=True, deadline=None)
@given(
    frames=st.lists(sketches, max_size=12),
    changes=flips,
    tail=st.one_of(st.just(b""), st.binary(max_size=100), st.just(bytes(96))),
    ends=st.lists(st.floats(0, 1), max_size=2),
    window=st.sampled_from([64, 200, 1024 * 1024]),
)
@example(frames=LAST_INDEX, changes=[], tail=b"", ends=[], window=1024)
@example(frames=[Sketch(index_step=RECORD_INDEX_MAX), Sketch()], changes=[], tail=b"", ends=[], window=1024)
@example(frames=[Sketch()] * 5, changes=[], tail=b"", ends=[0.5], window=1024)  # ends within a frame
@example(frames=[Sketch(payload=b"x")] * 5, changes=[], tail=b"", ends=[0.59], window=1024)  # ends within a padding
def test_records_read_at_once_are_those_that_steps_find_and_a_scan_is_the_same(
    folder: Path, frames: list[Sketch], changes: list[tuple[float, int]], tail: bytes, ends: list[float], window: int
) -> None:
    path = folder / "segment"
    data = segment(frames, changes, tail)
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger.files.source, "_WINDOW_BYTES", window)
        slow, fast = (Walk(Source(Disk(), path), SEED, ORDINAL, 0) for _ in range(2))
        assert one_step(fast, len(data)) == one_step(slow, len(data))  # fills the window beyond the ends that follow
        for share in (*sorted(ends), 1.0):
            end = int(share * len(data))
            assert told(many_at_once(fast, end)) == told(by_steps(slow, end))
            assert (fast.offset, fast.last_index) == (slow.offset, slow.last_index)
        assert outcome(scan, path, len(data)) == outcome(scanned_by_steps, path, len(data))
