"""A TCP proxy between a client and a server: it loses answers and keeps requests back, and does what networks do."""

import asyncio
import math
import socket
import struct
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum

DEADLINE_S = 20.0
READ_BYTES = 64 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class End(Enum):
    """Of a connection, or where what passes comes from."""

    CLIENT = "client"
    SERVER = "server"


BOTH = frozenset(End)


@dataclass(frozen=True)
class Fault:
    """What a network does to every connection, old and new, until it is healed."""

    refuses: bool = False  # nobody listens; who is connected is reset
    resets: bool = False  # who is connected is reset, and who connects, as soon as they do
    swallows: Collection[End] = ()  # what these send arrives only once the network has healed
    vanishes: End | None = None  # for who is connected now: this end is gone, and the other never hears of it
    piece_bytes: int = READ_BYTES
    bytes_per_s: float = math.inf
    delay_s: float = 0.0
    cut_after_bytes: float = math.inf  # each connection is reset when so many have passed, counted both ways


NONE = Fault()


@dataclass
class Network:
    """The fault there is, and who waits for another."""

    fault: Fault = NONE
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def become(self, fault: Fault) -> None:
        async with self.changed:
            self.fault = fault
            self.changed.notify_all()

    async def until_passing(self, sender: End) -> None:
        if sender in self.fault.swallows:
            async with self.changed:
                await self.changed.wait_for(lambda: sender not in self.fault.swallows)


@dataclass
class Link:
    """A client's connection and the one to the server behind it. Everything passes until told otherwise."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    network: Network = field(default_factory=Network)
    passed_bytes: int = 0
    _deaf: End | None = None
    _loses_answers: bool = False
    _kept: bytearray | None = None
    _grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    def lose_answers(self) -> None:
        """From now on nothing of the server reaches the client."""
        self._loses_answers = True

    def keep_requests(self) -> None:
        """From now on nothing of the client reaches the server, until `deliver`."""
        self._kept = bytearray()

    async def until_kept(self, requests: Collection[bytes]) -> None:
        """All of them are, each in one piece."""
        async with asyncio.timeout(DEADLINE_S), self._grown:
            await self._grown.wait_for(lambda: all(request in (self._kept or b"") for request in requests))

    def hang_up(self) -> None:
        """Ends the client's connection; the server's stays, and does not hear of it."""
        self.vanish(End.CLIENT)

    def vanish(self, end: End) -> None:
        """This end is gone; the other's connection stays, and does not hear of it."""
        self._deaf = End.SERVER if end is End.CLIENT else End.CLIENT
        reset(self.client if end is End.CLIENT else self.server)

    async def deliver(self) -> None:
        """Hands the server what was kept."""
        self.server.write(self._kept or b"")
        await self.server.drain()

    def cut(self) -> None:
        for end in (self.client, self.server):
            reset(end)

    async def carry_requests(self, client: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            async for piece in self._passing(client, End.CLIENT):
                if self._kept is None:
                    self.server.write(piece)
                    await self.server.drain()
                    continue
                async with self._grown:
                    self._kept += piece
                    self._grown.notify_all()
        if self._kept is None and self._deaf is not End.SERVER:
            self.server.close()

    async def carry_answers(self, server: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            async for piece in self._passing(server, End.SERVER):
                if not self._loses_answers:
                    self.client.write(piece)
                    await self.client.drain()
        if self._deaf is not End.CLIENT:
            self.client.close()

    async def _passing(self, reader: asyncio.StreamReader, sender: End) -> AsyncIterator[bytes]:
        """What arrives, piece by piece, when the network lets it through."""
        while data := await reader.read(READ_BYTES):
            while data and self._deaf is None:
                await self.network.until_passing(sender)
                fault = self.network.fault
                room_bytes = max(1, fault.cut_after_bytes - self.passed_bytes)
                size = int(min(fault.piece_bytes, len(data), room_bytes))
                await asyncio.sleep(fault.delay_s + size / fault.bytes_per_s)
                self.passed_bytes += size
                if self._deaf is None:
                    yield data[:size]
                data = data[size:]
                if self.passed_bytes >= fault.cut_after_bytes:
                    self.cut()


@dataclass
class Proxy:
    target: str
    port: int = 0
    links: list[Link] = field(default_factory=list)
    network: Network = field(default_factory=Network)
    connected_at: list[float] = field(default_factory=list)  # by the loop's clock; those that were refused are not seen
    _connections: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)
    _listening: asyncio.Server | None = None

    @property
    def newest(self) -> Link:
        """The connection that was made last."""
        return self.links[-1]

    async def strike(self, fault: Fault) -> None:
        """From now on the network is like that, and no longer as before."""
        await self.network.become(fault)
        for link in self.links:
            if fault.refuses or fault.resets:
                link.cut()
            if fault.vanishes:
                link.vanish(fault.vanishes)
        if fault.refuses:
            self._stop_listening()
        elif self._listening is None:
            await self.listen()

    async def heal(self) -> None:
        await self.strike(NONE)

    async def listen(self) -> None:
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    def _stop_listening(self) -> None:
        if self._listening:
            self._listening.close()
            self._listening = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected_at.append(asyncio.get_running_loop().time())
        self._connections.create_task(self._carry(reader, writer))

    async def _carry(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        host, _, port = self.target.rpartition(":")
        try:
            server_reader, server = await asyncio.open_connection(host, int(port))
        except ConnectionError:  # nobody is behind it now
            reset(client)
            return
        link = Link(client, server, self.network)
        self.links.append(link)
        if self.network.fault.resets:
            link.cut()
        await asyncio.gather(link.carry_requests(client_reader), link.carry_answers(server_reader))


def reset(end: asyncio.StreamWriter) -> None:
    """Closes a connection so that the other side sees an RST, whatever is on its way."""
    if not end.is_closing():
        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    end.transport.abort()


@asynccontextmanager
async def proxy(target: str) -> AsyncIterator[Proxy]:
    """In front of the server at host:port, until the block ends."""
    made = Proxy(target)
    with socket.socket() as reserved:  # the port stays ours while nobody listens on it
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        made.port = reserved.getsockname()[1]
        async with made._connections:
            await made.listen()
            try:
                yield made
            finally:
                await made.network.become(NONE)
                made._stop_listening()
                for link in made.links:
                    link.cut()
