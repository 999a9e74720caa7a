"""P13: what memory each server takes, at rest and while events stream through."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.emit import is_delivered
from bench.emit_stream import EmitStreaming
from bench.pair import Pair, pair
from bench.rounds import Figure, Measured, Scale

SAMPLED_EVERY_S = 0.25
MESSAGES = 40
KIB_A_MIB = 1024


def figures(scale: Scale) -> list[Figure]:
    with pair(scale.folder / "memory") as both:
        servers = {"OMEN": both.omen.pid, "RiskCast": both.riskcast.pid}
        idle = {name: rss_mib(pid) for name, pid in servers.items()}
        with sampled(servers) as samples:
            _stream(both, scale.loaded_s)
    return [figure for name in servers for figure in _of_server(name, idle[name], samples[name], scale.loaded_s)]


def _stream(both: Pair, seconds: float) -> None:
    streaming = EmitStreaming(both.omen.target, both.security, is_delivered, MESSAGES)
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        streaming()


def _of_server(name: str, idle: float, samples: list[float], seconds: float) -> list[Figure]:
    settings = f"resident memory; {seconds:.0f} s of EmitStream, 256 a message, each delivered"
    half = len(samples) // 2
    later = Measured([statistics.median(samples[-half // 2 :])], [statistics.median(samples[half // 2 : half])])
    return [
        Figure(f"memory of {name}, at rest", "MiB", "resident memory after the start", Measured([idle]), at_most=110),
        Figure(f"memory of {name}, streaming", "MiB", settings, Measured([max(samples)]), at_most=250),
        Figure(
            f"memory of {name}, last quarter",
            "MiB",
            settings,
            later,
            compared_with="the second quarter",
            at_most=1.1 if seconds >= 60 else None,  # before that, caches are still filling
        ),
    ]


@contextmanager
def sampled(servers: dict[str, int]) -> Iterator[dict[str, list[float]]]:
    samples: dict[str, list[float]] = {name: [] for name in servers}
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLED_EVERY_S):
            for name, pid in servers.items():
                samples[name].append(rss_mib(pid))

    sampler = threading.Thread(target=sample, name="memory-sampler")
    sampler.start()
    try:
        yield samples
    finally:
        ended.set()
        sampler.join()


def rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [rss] = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(rss) / KIB_A_MIB
