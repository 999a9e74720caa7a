"""NATS JetStream that syncs every message before it acknowledges it, and remembers ids: a real one, from a wheel."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
from nats.js import JetStreamContext

import serving
from bench.emit import CALL_TIMEOUT_S, IN_FLIGHT, new_events

SERVER = Path(sys.executable).with_name("nats-server")
START_TIMEOUT_S = 10.0
SUBJECT = "signals"
ID_HEADER = "Nats-Msg-Id"


@contextmanager
def jetstream(folder: Path) -> Iterator[str]:
    """Its address."""
    folder.mkdir()
    settings = folder / "settings"
    store = f'jetstream {{ store_dir: "{folder / "store"}", sync_interval: always }}'
    settings.write_text(f'listen: "127.0.0.1:-1"\nports_file_dir: "{folder}"\n{store}\n')
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SERVER, "-c", settings], stdout=log, stderr=log)
        try:
            yield _address(folder / f"nats-server_{process.pid}.ports", process)
        finally:
            process.terminate()
            process.wait(timeout=START_TIMEOUT_S)


def _address(ports: Path, process: "subprocess.Popen[bytes]") -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ports.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"NATS did not start: {ports.with_name('log').read_text()}")
        time.sleep(0.01)
    return str(json.loads(ports.read_text())["nats"][0])


class Publishing:
    """Messages a second, one event each, IN_FLIGHT at a time, each acknowledged as new."""

    def __init__(self, address: str, count: int) -> None:
        self._address = address
        self._count = count

    def __call__(self) -> float:
        return self._count / serving.run(self._took_s())

    async def _took_s(self) -> float:
        client = await nats.connect(self._address)
        try:
            stream = client.jetstream(timeout=CALL_TIMEOUT_S)
            await stream.add_stream(name=SUBJECT, subjects=[SUBJECT])
            return await self._published_s(stream)
        finally:
            await client.close()

    async def _published_s(self, stream: JetStreamContext) -> float:
        messages = iter([(each.SerializeToString(), each.source_event_id) for each in new_events(self._count)])

        async def publisher() -> None:
            for payload, message_id in messages:
                acknowledged = await stream.publish(SUBJECT, payload, headers={ID_HEADER: message_id})
                if acknowledged.duplicate:
                    raise RuntimeError(f"{message_id} was there")

        began = time.perf_counter()
        async with asyncio.TaskGroup() as publishers:
            for _ in range(IN_FLIGHT):
                publishers.create_task(publisher())
        return time.perf_counter() - began
