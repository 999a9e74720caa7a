"""A TCP proxy between a client and a server, which can lose answers and keep requests back."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

DEADLINE_S = 20.0
READ_BYTES = 64 * 1024


@dataclass
class Link:
    """A client's connection and the one to the server behind it. Everything passes until told otherwise."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
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
        self._loses_answers = True
        self.client.transport.abort()

    async def deliver(self) -> None:
        """Hands the server what was kept."""
        self.server.write(self._kept or b"")
        await self.server.drain()

    def cut(self) -> None:
        for end in (self.client, self.server):
            end.transport.abort()

    async def carry_requests(self, client: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while data := await client.read(READ_BYTES):
                if self._kept is None:
                    self.server.write(data)
                    await self.server.drain()
                    continue
                async with self._grown:
                    self._kept += data
                    self._grown.notify_all()
        if self._kept is None:
            self.server.close()

    async def carry_answers(self, server: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while data := await server.read(READ_BYTES):
                if not self._loses_answers:
                    self.client.write(data)
                    await self.client.drain()
        self.client.close()


@dataclass
class Proxy:
    target: str
    port: int = 0
    links: list[Link] = field(default_factory=list)

    @property
    def newest(self) -> Link:
        """The connection that was made last."""
        return self.links[-1]

    async def carry(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        host, _, port = self.target.rpartition(":")
        server_reader, server = await asyncio.open_connection(host, int(port))
        link = Link(client, server)
        self.links.append(link)
        await asyncio.gather(link.carry_requests(client_reader), link.carry_answers(server_reader))
        server.close()


@asynccontextmanager
async def proxy(target: str) -> AsyncIterator[Proxy]:
    """In front of the server at host:port, until the block ends."""
    made = Proxy(target)
    async with asyncio.TaskGroup() as connections:

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.create_task(made.carry(reader, writer))

        async with await asyncio.start_server(accept, "127.0.0.1", 0) as listening:
            made.port = listening.sockets[0].getsockname()[1]
            try:
                yield made
            finally:
                for link in made.links:
                    link.cut()
