"""Opening what crashes, torn writes and rot left behind. Real files throughout."""

import hashlib
import random
import shutil
from pathlib import Path

import pytest

from ledger import (
    FormatUnsupported,
    LedgerDamaged,
    LedgerReader,
    PartitionClosed,
    Recovered,
    Seal,
    SealedSegment,
    SealState,
    SegmentInfo,
    SegmentState,
)
from ledger.files.layout import encode_identity
from ledger.seal import encode_seal
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import (
    FIVE,
    NOON,
    TODAY,
    Answers,
    FaultyDisk,
    append_each,
    crash_image,
    cut_tail,
    frame_starts,
    one_batch,
    reopened,
    segment_of,
    served,
)


def test_a_crashed_segment_is_frozen_and_the_next_append_opens_the_next_ordinal(
    crashed: Path, open_ledger: OpenLedger
) -> None:
    answers = Answers()
    ledger = open_ledger(answers, crashed)
    info = ledger.partition(TODAY).segments[0]
    assert (info.state, info.record_count, info.damaged) == (SegmentState.FROZEN, 5, ())
    assert append_each(ledger, answers, [b"six"])[0].sequence == 2 << 32 | 1
    assert [record.payload for record in ledger.reader().records(TODAY)] == [*FIVE, b"six"]


def test_the_last_segment_opens_cut_at_every_byte_and_keeps_every_whole_record(crashed: Path, tmp_path: Path) -> None:
    data = segment_of(crashed).read_bytes()
    ends = [start + 48 + -(-len(payload) // 8) * 8 for start, payload in zip(frame_starts(crashed), FIVE, strict=True)]
    for size in range(len(data) + 1):
        image = shutil.copytree(crashed, tmp_path / "image")
        segment_of(image).write_bytes(data[:size])
        info = reopened(image).segments[0]
        whole = sum(end <= size for end in ends)
        assert info.record_count == whole, size
        assert info.damaged == ()
        assert (info.state is SegmentState.DAMAGED) == (size < frame_starts(crashed)[0])
        if info.state is SegmentState.FROZEN:
            assert served(image) == FIVE[:whole]
        shutil.rmtree(image)


def test_a_torn_tail_is_copied_aside_and_opening_again_finds_nothing_more_to_do(crashed: Path) -> None:
    last = segment_of(crashed).read_bytes()[frame_starts(crashed)[4] :]
    cut_tail(segment_of(crashed), 1)
    assert reopened(crashed).segments[0].record_count == 4
    torn = LedgerReader(crashed).torn_files()
    assert [path.read_bytes() for path in torn] == [last[:-1]]
    after = segment_of(crashed).read_bytes()
    assert reopened(crashed).segments[0].record_count == 4
    assert segment_of(crashed).read_bytes() == after
    assert LedgerReader(crashed).torn_files() == torn


def test_a_crash_between_copying_a_tail_and_truncating_it_leaves_one_copy(crashed: Path, tmp_path: Path) -> None:
    cut_tail(segment_of(crashed), 1)
    torn_segment = segment_of(crashed).read_bytes()
    reopened(crashed)
    segment_of(crashed).write_bytes(torn_segment)
    reopened(crashed)
    assert len(LedgerReader(crashed).torn_files()) == 1
    other = bytearray(torn_segment)
    other[-1] ^= 1
    segment_of(crashed).write_bytes(other)
    reopened(crashed)
    assert len(LedgerReader(crashed).torn_files()) == 2


@pytest.mark.parametrize("seed", range(100))
def test_an_unsynced_batch_may_come_back_as_zeros_garbage_or_a_mixture(
    tmp_path: Path, open_ledger: OpenLedger, seed: int
) -> None:
    """Two acknowledged records; then a batch whose fdatasync failed, each sector of it kept, zeroed or garbage."""
    chance = random.Random(seed)
    disk = FaultyDisk().fail("fdatasync", at=3)
    answers = Answers()
    ledger = open_ledger(answers, tmp_path / "running", disk, idle_mark_s=3600)
    append_each(ledger, answers, FIVE[:2])
    durable = segment_of(tmp_path / "running").stat().st_size
    batch = [chance.randbytes(chance.randrange(400)) for _ in range(20)]
    with one_batch(ledger):
        for payload in batch:
            ledger.append(payload, NOON, payload)
    answers.of(*batch)
    image = crash_image(tmp_path / "running", tmp_path / "image")
    data = bytearray(segment_of(image).read_bytes())
    for start in range(durable // 512 * 512, len(data), 512):
        sector = slice(max(start, durable), min(start + 512, len(data)))
        size = sector.stop - sector.start
        data[sector] = chance.choice([data[sector], data[sector], bytes(size), chance.randbytes(size)])
    segment_of(image).write_bytes(data[: chance.randrange(durable, len(data) + 1)] if chance.randrange(2) else data)
    info = reopened(image).segments[0]
    assert (info.state, info.damaged) == (SegmentState.FROZEN, ())
    kept = served(image)
    assert len(kept) == info.record_count >= 2
    assert kept == [*FIVE[:2], *batch][: len(kept)]


@pytest.mark.parametrize("count", [8, 56, 4096, 3 * 1024 * 1024])
def test_zeros_and_garbage_after_the_last_frame_open_without_loss(crashed: Path, tmp_path: Path, count: int) -> None:
    for tail in (bytes(count), random.Random(count).randbytes(count)):
        image = shutil.copytree(crashed, tmp_path / "image")
        with segment_of(image).open("ab") as file:
            file.write(tail)
        info = reopened(image).segments[0]
        assert (info.record_count, info.state) == (5, SegmentState.FROZEN)
        assert served(image) == FIVE
        shutil.rmtree(image)


def test_files_without_their_final_name_are_removed(crashed: Path) -> None:
    leftover = segment_of(crashed, 2).with_suffix(".log.tmp")
    leftover.write_bytes(b"half a file")
    assert len(reopened(crashed).segments) == 1
    assert not leftover.exists()


def test_the_identity_is_never_invented_anew_beside_existing_partitions(crashed: Path, open_ledger: OpenLedger) -> None:
    (crashed / "ledger.json").unlink()
    with pytest.raises(LedgerDamaged, match="is missing beside existing partitions"):
        open_ledger(Answers(), crashed)


@pytest.mark.parametrize(("text", "error"), [("{", LedgerDamaged), ('{"format_version": 2}', LedgerDamaged)])
def test_an_identity_that_cannot_be_read_is_refused(crashed: Path, text: str, error: type[Exception]) -> None:
    (crashed / "ledger.json").write_text(text)
    with pytest.raises(error):
        LedgerReader(crashed)


def test_a_newer_format_is_refused(crashed: Path) -> None:
    told = {"format_version": 2, "ledger_id": "of another kind", "more": 1}
    (crashed / "ledger.json").write_bytes(encode_identity(told))
    with pytest.raises(FormatUnsupported, match="version 2"):
        LedgerReader(crashed)


def test_without_space_recovery_changes_nothing_and_reading_still_works(crashed: Path, open_ledger: OpenLedger) -> None:
    cut_tail(segment_of(crashed), 1)
    before = segment_of(crashed).read_bytes()
    disk = FaultyDisk()
    disk.free = 10
    answers = Answers()
    ledger = open_ledger(answers, crashed, disk, free_bytes_min=1000)
    assert segment_of(crashed).read_bytes() == before
    assert [record.payload for record in ledger.reader().records(TODAY)] == FIVE[:4]
    disk.free = 1 << 40
    append_each(ledger, answers, [b"six"])
    ledger.close()
    assert served(crashed) == [*FIVE[:4], b"six"]


def test_a_sealed_partition_takes_nothing_and_is_not_changed(crashed: Path, open_ledger: OpenLedger) -> None:
    info = reopened(crashed).segments[0]
    seal(crashed, info)
    before = segment_of(crashed).read_bytes()
    answers = Answers()
    ledger = open_ledger(answers, crashed)
    assert append_each(ledger, answers, [b"late"])[0].partition == f"{TODAY}-late"
    assert ledger.partition(TODAY).is_sealed
    assert segment_of(crashed).read_bytes() == before
    (crashed / f"{TODAY}-late" / "SEAL").write_text("{}")
    ledger.close()
    again = open_ledger(answers, crashed)
    again.append(b"too late", NOON, "too late")
    assert isinstance(answers.of("too late")[0], PartitionClosed)


def test_a_seal_is_evidence_of_what_was_durable(crashed: Path) -> None:
    seal(crashed, reopened(crashed).segments[0])
    segment_of(crashed).write_bytes(segment_of(crashed).read_bytes()[: frame_starts(crashed)[4]])
    partition = reopened(crashed)
    assert partition.damaged
    assert partition.segments[0].damaged == ((5, 5),)


def test_a_pruned_partition_is_not_mistaken_for_loss(crashed: Path) -> None:
    seal(crashed, reopened(crashed).segments[0], state=SealState.PRUNED)
    segment_of(crashed).unlink()
    for partition in (reopened(crashed), LedgerReader(crashed).partition(TODAY)):
        assert (partition.is_pruned, partition.damaged, partition.record_count) == (True, False, 5)
        assert partition.highwater_sequence == 1 << 32 | 5


def seal(directory: Path, info: SegmentInfo, state: SealState = SealState.SEALED) -> None:
    data = segment_of(directory).read_bytes()[: info.byte_length]
    segment = SealedSegment(
        segment_of(directory).name,
        info.ordinal,
        info.segment_id,
        info.record_count,
        info.byte_length,
        hashlib.sha256(data).hexdigest(),
    )
    ledger_id = LedgerReader(directory).ledger_id
    highwater = info.ordinal << 32 | info.record_count
    told = Seal(ledger_id, TODAY, False, 0, info.record_count, highwater, 1, 1, None, (segment,), state)
    (directory / TODAY / "SEAL").write_bytes(encode_seal(told))


def test_an_unfrozen_segment_and_its_directory_are_made_durable_before_they_are_read(crashed: Path) -> None:
    class ReadWatch(FaultyDisk):
        def read(self, path: Path, offset: int, size: int) -> bytes:
            if path.suffix == ".log" and offset:
                self.events.append(("read", path.name))
            return super().read(path, offset, size)

        def drop_cache(self, fd: int) -> None:
            self.events.append(("drop_cache", ""))
            super().drop_cache(fd)

    disk = ReadWatch()
    reopened(crashed, disk)
    name = "segment-00000001.log"
    events = [("open_existing", name), ("fsync", name), ("fsync_dir", TODAY), ("drop_cache", ""), ("read", name)]
    assert disk.events[: len(events)] == events


def test_a_torn_tail_is_durable_elsewhere_before_it_is_cut_off_and_the_cut_before_the_footer(crashed: Path) -> None:
    cut_tail(segment_of(crashed), 1)
    disk = FaultyDisk()
    reopened(crashed, disk)
    name = "segment-00000001.log"
    torn = LedgerReader(crashed).torn_files()[0].name
    copied = [("create", torn + ".tmp"), ("write", torn), ("fsync", torn), ("rename", torn), ("fsync_dir", TODAY)]
    cut = [("truncate", name), ("fsync", name), ("write", name), ("fdatasync", name)]
    assert disk.events[3:] == copied + cut


def test_pinned_segments_are_trusted_by_their_footer_and_not_read_at_opening(
    open_ledger: OpenLedger, directory: Path
) -> None:
    class CountingDisk(FaultyDisk):
        bytes_read = 0

        def read(self, path: Path, offset: int, size: int) -> bytes:
            data = super().read(path, offset, size)
            self.bytes_read += len(data)
            return data

    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=4)
    append_each(ledger, answers, [bytes([number]) * 1_000_000 for number in range(12)])
    ledger.close()
    disk = CountingDisk()
    again = open_ledger(Answers(), disk=disk)
    assert again.partition(TODAY).record_count == 12
    assert disk.bytes_read < 2_000_000 + 4_000_000  # heads and tails of three segments of 4 MB, and all of the last


def test_a_footer_that_nobody_pins_is_made_durable_before_anything_relies_on_it(crashed: Path) -> None:
    """Its writer may have been killed between writing and syncing it."""
    reopened(crashed)
    disk = FaultyDisk()
    reopened(crashed, disk)
    name = "segment-00000001.log"
    assert disk.events == [("open_existing", name), ("fsync", name), ("fsync_dir", TODAY)]


def test_opening_tells_which_tails_it_cut_off_and_only_those(crashed: Path, open_ledger: OpenLedger) -> None:
    start = frame_starts(crashed)[4]
    cut_tail(segment_of(crashed), 1)
    ledger = open_ledger(Answers(), crashed)
    torn = crashed / TODAY / f"segment-00000001.{start}.torn"
    assert ledger.recovered == Recovered(damaged=(), torn_files=(torn,))
    ledger.close()
    assert open_ledger(Answers(), crashed).recovered == Recovered((), ())


@pytest.mark.parametrize("name", ["2026-13-45", "2026-02-30-late", "20260129", "2026-W05-4", "2026-01-29-late-late"])
def test_a_directory_whose_name_is_no_date_is_no_partition(crashed: Path, open_ledger: OpenLedger, name: str) -> None:
    (crashed / name).mkdir()
    for reader in (open_ledger(Answers(), crashed).reader(), LedgerReader(crashed)):
        assert [partition.name for partition in reader.partitions()] == [TODAY]
