"""Both servers as processes with keys, and what an abuse costs: memory of the server, and patience of its clients."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import grpc

from contract.scopes import Scope
from omen.v1 import signal_service_pb2 as signals
from riskcast.v1 import ingest_service_pb2 as ingest
from serving.access.keys import new_key, sha256_of
from tests.hostile.requests import EMIT, INGEST, event, whole_event
from tests.omen_server.running import closed_port
from tests.system.processes import Server

KIB = 1024
CALL_S = 10.0
CALLS_MIN = 100  # so that the 99th percentile is not the slowest of a few
# On the wire it is the same request of either server.
SIGNAL = signals.GetSignalRequest(signal_id=whole_event(0).signal_id)
CALLS_MAX = 300  # while an abuse takes its time
ROUNDS_S = 0.1  # an abuse that is over sooner is repeated
DEADLINE_S = 60.0
PAUSE_S = 0.002  # between two calls of a bystander, who is no abuse himself


def key_file(path: Path, *keys: str) -> Path:
    """A file of keys that may do everything."""
    entries = [
        {"id": key.partition(".")[0], "sha256": sha256_of(key), "scopes": [scope.value for scope in Scope]}
        for key in keys
    ]
    return private(path, json.dumps({"keys": entries}))


def private(path: Path, text: str) -> Path:
    """A file that its owner alone can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(text)
    return path


@dataclass(frozen=True)
class Victim:
    """A server that is abused. Whoever has `key` may do everything; `write` stores, `read` gives back SIGNAL."""

    server: Server
    key: str
    write: str
    read: str

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def is_alive(self) -> bool:
        return self.server.process is not None and self.server.process.poll() is None

    def forget_peak(self) -> None:
        (self._proc / "clear_refs").write_text("5", "ascii")

    def resident_bytes(self) -> int:
        return self._memory("VmRSS")

    def peak_bytes(self) -> int:
        """The most that was resident since `forget_peak`."""
        return self._memory("VmHWM")

    def open_files(self) -> int:
        return len(list((self._proc / "fd").iterdir()))

    @property
    def _proc(self) -> Path:
        assert self.server.process
        return Path(f"/proc/{self.server.process.pid}")

    def _memory(self, name: str) -> int:
        lines = (self._proc / "status").read_text("ascii").splitlines()
        return next(int(line.split()[1]) * KIB for line in lines if line.startswith(f"{name}:"))

    def written(self, encoded: bytes, key: str = "") -> grpc.StatusCode:
        """How a call that writes ends, of a client on a connection of its own."""
        with self.client(key) as call:
            try:
                call(self.write, encoded)
            except grpc.RpcError as error:
                failed: Any = error
                code: grpc.StatusCode = failed.code()
                return code
        return grpc.StatusCode.OK

    @contextmanager
    def client(self, key: str = "") -> Iterator[Callable[[str, bytes], bytes]]:
        """Makes unary calls with bytes as they are, however many."""
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options=options) as channel:
            metadata = [("x-api-key", key or self.key)]
            make: Any = channel.unary_unary
            yield lambda path, encoded: make(path)(encoded, metadata=metadata, timeout=CALL_S)


class Bystander:
    """Reads one signal again and again, and times each call."""

    def __init__(self, victim: Victim) -> None:
        self._victim = victim
        self._is_over = Event()
        self.enough = Event()
        self.seconds: list[float] = []
        self.failure: BaseException | None = None

    def p99_s(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]

    @contextmanager
    def calling(self) -> Iterator[None]:
        thread = Thread(target=self._call)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()
        if self.failure:
            raise self.failure

    def _call(self) -> None:
        with self._victim.client() as call:
            try:
                while len(self.seconds) < CALLS_MAX and not self._is_over.wait(PAUSE_S):
                    began = time.perf_counter()
                    call(self._victim.read, SIGNAL.SerializeToString())
                    self.seconds.append(time.perf_counter() - began)
                    if len(self.seconds) == CALLS_MIN:
                        self.enough.set()
            except grpc.RpcError as error:
                self.failure = error
                self.enough.set()


def felt(victim: Victim, abuse: Callable[[Victim], None]) -> float:
    """The 99th percentile of a bystander's calls, during an abuse for the most part."""
    bystander, until = Bystander(victim), time.monotonic() + ROUNDS_S
    with bystander.calling():
        abuse(victim)
        while len(bystander.seconds) < CALLS_MIN and time.monotonic() < until:
            abuse(victim)
        bystander.enough.wait(DEADLINE_S)
    return bystander.p99_s()


@contextmanager
def victims(directory: Path) -> Iterator[dict[str, Victim]]:
    """An OMEN and a RiskCast with keys, each of which holds the signal that a bystander reads."""
    keys = {name: new_key(name) for name in ("client", "omen", "riskcast")}
    ports = {name: closed_port() for name in ("omen", "riskcast")}
    files = {name: str(private(directory / f"{name}.key", keys[name])) for name in ports}
    riskcast = Server(
        "riskcast_server",
        {
            "RISKCAST_DATABASE_URL": f"sqlite:///{directory / 'riskcast.db'}",
            "RISKCAST_API_KEYS_FILE": str(key_file(directory / "riskcast.keys", keys["client"], keys["omen"])),
            "RISKCAST_OMEN_TARGETS": f"127.0.0.1:{ports['omen']}",
            "RISKCAST_OMEN_API_KEY_FILE": files["riskcast"],
        },
        port=ports["riskcast"],
    )
    omen = Server(
        "omen_server",
        {
            "OMEN_LEDGER_DIR": str(directory / "ledger"),
            "OMEN_API_KEYS_FILE": str(key_file(directory / "omen.keys", keys["client"], keys["riskcast"])),
            "OMEN_RISKCAST_TARGET": f"127.0.0.1:{ports['riskcast']}",
            "OMEN_RISKCAST_API_KEY_FILE": files["omen"],
        },
        port=ports["omen"],
    )
    found = {
        "omen": Victim(omen, keys["client"], EMIT, "/omen.v1.SignalService/GetSignal"),
        "riskcast": Victim(riskcast, keys["client"], INGEST, "/riskcast.v1.SignalService/GetSignal"),
    }
    try:
        for name in ("riskcast", "omen"):
            asyncio.run(found[name].server.start())
        emitted = signals.EmitRequest(event=event(0), wait_for=signals.WAIT_FOR_LEDGER)
        assert found["omen"].written(emitted.SerializeToString()) is grpc.StatusCode.OK
        known = found["riskcast"].written(ingest.IngestRequest(event=whole_event(0)).SerializeToString())
        assert known in (grpc.StatusCode.OK, grpc.StatusCode.ALREADY_EXISTS)  # OMEN may have delivered it
        yield found
    finally:
        for victim in found.values():
            if victim.server.process:
                asyncio.run(victim.server.kill())
