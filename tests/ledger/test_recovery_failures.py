"""Any operation of an opening that has to recover fails: it refuses or goes on, and the next opening finds the same."""

import errno
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest

from ledger import Ledger, LedgerFull, LedgerReader, LedgerSettings, LedgerUnavailable, Position
from tests.ledger.faults import (
    FOR_GOOD,
    NOON,
    TODAY,
    Answers,
    FaultyDisk,
    append_each,
    at_noon,
    crash_image,
    cut_tail,
    segment_of,
)

SETTINGS = LedgerSettings(free_bytes_min=0, segment_records_max=3, idle_mark_s=3600)
EARLIER = [b"earlier-1", b"earlier-2", b"earlier-3", b"earlier-4"]
KEPT = EARLIER[:3]
NEW = [f"new-{number}".encode() for number in range(4)]
OPERATIONS = 30  # at least so many has an opening that recovers, with a few appends behind it


@pytest.fixture
def torn(where: Path) -> Path:
    """Three acknowledged records, a torn fourth in a segment of its own, and a file that never got its name."""
    answers = Answers()
    with Ledger.open(where / "running", on_commit=answers, settings=SETTINGS, now=at_noon) as ledger:
        append_each(ledger, answers, EARLIER)
        image = crash_image(where / "running", where / "torn")
    cut_tail(segment_of(image, 2), 1)
    segment_of(image, 3).with_suffix(".log.tmp").write_bytes(b"half a file")
    return image


def append_until_refused(ledger: Ledger, answers: Answers) -> list[bytes]:
    taken = []
    for payload in NEW:
        try:
            ledger.append(payload, NOON, payload)
        except LedgerUnavailable:
            break
        if not isinstance(answers.of(payload)[0], Position):
            break
        taken.append(payload)
    return taken


def payloads(reader: LedgerReader) -> list[bytes]:
    return [record.payload for record in reader.records(TODAY)]


def open_and_append(directory: Path, disk: FaultyDisk) -> list[bytes] | None:
    """What was acknowledged; None when opening was refused. An open ledger serves, whatever it refuses to take."""
    answers = Answers(disk.events)
    try:
        ledger = Ledger.open(directory, on_commit=answers, settings=SETTINGS, disk=disk, now=at_noon)
    except (LedgerUnavailable, LedgerFull):
        return None
    with ledger:
        assert not ledger.partition(TODAY).damaged
        assert payloads(ledger.reader()) == KEPT
        return append_until_refused(ledger, answers)


def assert_opens_again(directory: Path, acknowledged: Sequence[bytes]) -> None:
    answers = Answers()
    with Ledger.open(directory, on_commit=answers, settings=SETTINGS, now=at_noon) as ledger:
        assert not ledger.partition(TODAY).damaged
        append_each(ledger, answers, [b"after"])
        held = payloads(ledger.reader())
    written = held[len(KEPT) : -1]
    assert held == [*KEPT, *NEW[: len(written)], b"after"]
    assert written[: len(acknowledged)] == acknowledged
    assert not list(directory.rglob("*.tmp"))
    # The torn tail is cut off and kept, or left where a successor's pin says that it does not exist.
    kept = [*LedgerReader(directory).torn_files(), segment_of(directory, 2)]
    assert any(EARLIER[3] in path.read_bytes() for path in kept)


@pytest.mark.parametrize("times", [1, FOR_GOOD], ids=["once", "for good"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE], ids=errno.errorcode.get)
def test_whichever_operation_of_an_opening_fails_the_next_opening_finds_every_record(
    where: Path, torn: Path, error: int, times: int
) -> None:
    for at in count(1):
        image = crash_image(torn, where / str(at))
        disk = FaultyDisk().fail("any", at=at, with_=error, times=times)
        acknowledged = open_and_append(image, disk)
        assert_opens_again(image, acknowledged or [])
        if not disk.has_failed:
            assert acknowledged == NEW
            assert at > OPERATIONS
            return


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_without_space_a_start_serves_reads_wherever_recovery_wanted_some(where: Path, torn: Path, error: int) -> None:
    """Above the free-space floor, and yet nothing more is taken. Only what must be known first refuses: an fsync."""
    first = FaultyDisk()
    Ledger.open(crash_image(torn, where / "whole"), on_commit=Answers(), settings=SETTINGS, disk=first).close()
    kinds = [kind for kind, _ in first.events]
    assert {"unlink", "create", "write", "rename", "truncate", "fdatasync"} <= set(kinds)
    known_at = kinds.index("create")  # the copy of the torn tail: everything before it is made durable and read
    for at, kind in enumerate(kinds, 1):
        image = crash_image(torn, where / str(at))
        acknowledged = open_and_append(image, FaultyDisk().fail("any", at=at, with_=error, times=1))
        is_refused = at <= known_at and kind != "unlink"
        assert (acknowledged is None) == is_refused, (at, kind)


def test_a_start_without_space_takes_appends_again_when_space_is_back(where: Path, torn: Path) -> None:
    disk = FaultyDisk().fail("write", at=1, with_=errno.ENOSPC)
    answers = Answers()
    before = segment_of(torn, 2).read_bytes()
    with Ledger.open(torn, on_commit=answers, settings=SETTINGS, disk=disk, now=at_noon) as ledger:
        assert segment_of(torn, 2).read_bytes() == before
        assert ledger.recovered.torn_files == ()
        append_each(ledger, answers, NEW)
        assert payloads(ledger.reader()) == [*KEPT, *NEW]
        assert payloads(LedgerReader(torn)) == [*KEPT, *NEW[:3]]  # of the last one the files do not say it yet
    with Ledger.open(torn, on_commit=answers, settings=SETTINGS, now=at_noon) as ledger:
        assert payloads(ledger.reader()) == [*KEPT, *NEW]
        assert not ledger.partition(TODAY).damaged


@pytest.mark.parametrize("kind", ["create", "write", "rename", "truncate", "fdatasync", "unlink"])
def test_a_device_error_while_recovering_refuses_to_open(torn: Path, kind: str) -> None:
    disk = FaultyDisk().fail(kind, at=1)
    with pytest.raises(LedgerUnavailable, match=r"^[^\n]*cannot open the ledger: [^\n]*$"):
        Ledger.open(torn, on_commit=Answers(), settings=SETTINGS, disk=disk, now=at_noon)
