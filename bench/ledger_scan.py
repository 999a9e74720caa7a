"""P6: one segment of 1 KiB records read with every CRC checked, against sha256 of the same file, read alike."""

import time
from pathlib import Path

from bench.ledger_append import fill
from bench.rounds import Figure, Scale, measure
from ledger import Disk
from ledger.disk import sha256_of
from ledger.files.survey import PartitionSurvey, Surveyed
from ledger.opening.inspection import inspect


def figures(scale: Scale) -> list[Figure]:
    surveyed = scanned_segment(scale.folder / "to scan", 60_000)
    figure = Figure(
        "ledger scan, every CRC checked",
        "MB/s",
        "one segment of 60,000 payloads of 1 KiB, 1 process, nothing synced, file in the page cache",
        measure(Scanning(surveyed), scale.rounds, Hashing(surveyed.path)),
        compared_with="sha256 of the same file",
        at_least=0.5,
    )
    return [figure]


def scanned_segment(folder: Path, count: int) -> Surveyed:
    with fill(folder, count) as ledger:
        (info,) = ledger.partitions()
    return PartitionSurvey(Disk(), folder, info.name, ledger.ledger_id).segment(1)


class Scanning:
    """Megabytes a second."""

    def __init__(self, surveyed: Surveyed) -> None:
        self._surveyed = surveyed

    def __call__(self) -> float:
        began = time.perf_counter()
        info, _, found = inspect(Disk(), self._surveyed)
        took_s = time.perf_counter() - began
        if found.gaps or not info.record_count:
            raise RuntimeError(f"a scan of a whole segment found {found.gaps}")
        return info.byte_length / took_s / 1e6


class Hashing:
    """Megabytes a second."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> float:
        size = self._path.stat().st_size
        began = time.perf_counter()
        sha256_of(Disk(), self._path, size)
        return size / (time.perf_counter() - began) / 1e6
