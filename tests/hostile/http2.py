"""HTTP/2 by hand, for what no client library lets one do. Frames as in RFC 9113, headers as in RFC 7541, no Huffman."""

import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES_MAX = 16_384  # what any peer takes
HEAD_BYTES = 9
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 0x1, 0x4  # settings
DEADLINE_S = 15.0
STUCK_S = 1.0


class Kind(IntEnum):
    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


REFUSED_STREAM, ENHANCE_YOUR_CALM = 7, 11


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: Kind, payload: bytes = b"", *, stream: int = 0, flags: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def integer(value: int, prefix_bits: int, first: int = 0) -> bytes:
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first | value])
    encoded, rest = [first | limit], value - limit
    while rest >= 128:
        encoded.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*encoded, rest])


def text(value: bytes) -> bytes:
    return integer(len(value), 7) + value


def header(name: str, value: str | bytes) -> bytes:
    """A literal that no table keeps."""
    return b"\0" + text(name.encode()) + text(value if isinstance(value, bytes) else value.encode())


def kept_header(name: str, value: bytes) -> bytes:
    """A literal that the peer's table keeps, as its newest: KEPT names it again."""
    return b"\x40" + text(name.encode()) + text(value)


KEPT = integer(62, 7, 0x80)  # the first after the 61 that every table has


def call_headers(path: str, key: str = "", **more: str) -> bytes:
    """The headers of a gRPC call; underscores of names become dashes."""
    block = b"\x83\x86" + b"\x04" + text(path.encode()) + b"\x01" + text(b"localhost")
    block += header("content-type", "application/grpc") + header("te", "trailers")
    named = {"x_api_key": key} if key else {}
    return block + b"".join(header(name.replace("_", "-"), value) for name, value in {**named, **more}.items())


def opening(stream: int, block: bytes) -> bytes:
    """HEADERS with as many CONTINUATIONs as they need."""
    parts = [block[at : at + FRAME_BYTES_MAX] for at in range(0, len(block), FRAME_BYTES_MAX)]
    frames = [
        frame(
            Kind.CONTINUATION if number else Kind.HEADERS,
            part,
            stream=stream,
            flags=END_HEADERS if number == len(parts) - 1 else 0,
        )
        for number, part in enumerate(parts)
    ]
    return b"".join(frames)


def message(encoded: bytes, *, is_compressed: bool = False) -> bytes:
    """A gRPC message as DATA carries it."""
    return struct.pack(">BI", is_compressed, len(encoded)) + encoded


def body(stream: int, sent: bytes) -> bytes:
    """DATA to the end of a stream."""
    parts = [sent[at : at + FRAME_BYTES_MAX] for at in range(0, len(sent), FRAME_BYTES_MAX)] or [b""]
    return b"".join(
        frame(Kind.DATA, part, stream=stream, flags=END_STREAM if number == len(parts) - 1 else 0)
        for number, part in enumerate(parts)
    )


def reset(stream: int) -> bytes:
    return frame(Kind.RST_STREAM, struct.pack(">I", 8), stream=stream)


# The peer's headers come as literals, which need no table to be read.
HELLO = PREFACE + frame(Kind.SETTINGS, struct.pack(">HI", HEADER_TABLE_SIZE, 0))
# Of a client that takes all there is, whether it reads it or not: the largest windows, of a stream and of a connection.
WINDOW_MAX = 2**31 - 1
GREEDY_HELLO = (
    PREFACE
    + frame(Kind.SETTINGS, struct.pack(">HI", INITIAL_WINDOW_SIZE, WINDOW_MAX))
    + frame(Kind.WINDOW_UPDATE, struct.pack(">I", WINDOW_MAX - 65_535))
)


class Connection:
    """Sends whatever it is told to. `is_closed` once the peer has closed it."""

    def __init__(self, peer: socket.socket) -> None:
        self._socket = peer
        self._buffer = b""
        self.is_closed = False

    def send(self, data: bytes) -> bool:
        """False when the peer has closed, or has not read for as long as STUCK_S."""
        self._socket.settimeout(STUCK_S)
        try:
            self._socket.sendall(data)
        except OSError:
            self.is_closed = True
        return not self.is_closed

    def frames(self, deadline_s: float = DEADLINE_S) -> Iterator[Frame]:
        """What the peer sends, until it closes. Raises TimeoutError."""
        until = time.monotonic() + deadline_s
        while True:
            while (found := self._maybe_frame()) is None:
                self._socket.settimeout(max(0.001, until - time.monotonic()))
                try:
                    part = self._socket.recv(65_536)
                except ConnectionError:
                    part = b""
                if not part:
                    self.is_closed = True
                    return
                self._buffer += part
            yield found

    def _maybe_frame(self) -> Frame | None:
        if len(self._buffer) < HEAD_BYTES:
            return None
        length = int.from_bytes(self._buffer[:3])
        if len(self._buffer) < HEAD_BYTES + length:
            return None
        kind, flags, stream = struct.unpack(">BBI", self._buffer[3:HEAD_BYTES])
        payload = self._buffer[HEAD_BYTES : HEAD_BYTES + length]
        self._buffer = self._buffer[HEAD_BYTES + length :]
        return Frame(kind, flags, stream, payload)

    def until(self, holds: Callable[[Frame], bool], deadline_s: float = DEADLINE_S) -> Frame:
        """The next frame for which it holds. Raises TimeoutError, ConnectionError."""
        for found in self.frames(deadline_s):
            if holds(found):
                return found
        raise ConnectionError("the server has closed the connection")

    def statuses(self, *streams: int) -> dict[int, int]:
        """The grpc-status that ends each of these streams; gRPC writes it without Huffman."""
        name, found = text(b"grpc-status"), dict[int, int]()
        while len(found) < len(streams):
            ended = self.until(lambda each: bool(each.flags & END_STREAM) and name in each.payload)
            value = ended.payload.partition(name)[2]
            found[ended.stream] = int(value[1 : 1 + value[0]])
        return found

    def status(self, stream: int) -> int:
        return self.statuses(stream)[stream]

    def ponged(self) -> list[Frame]:
        """All that comes until the peer has answered a PING: it has then read what was sent before."""
        self.send(frame(Kind.PING, b"are you?"))
        before: list[Frame] = []
        for found in self.frames():
            if found.kind == Kind.PING and found.flags & ACK:
                return before
            before.append(found)
        raise ConnectionError("the server has closed the connection")

    def until_closed(self) -> list[Frame]:
        """All that comes until the peer closes. Raises TimeoutError."""
        return list(self.frames())

    def settle(self) -> None:
        """Takes over the settings of the peer: until then it cannot hold this side to them."""
        self.until(lambda each: each.kind == Kind.SETTINGS and not each.flags & ACK)
        self.send(frame(Kind.SETTINGS, flags=ACK))


def encrypted(port: int, ca_file: Path) -> socket.socket:
    """A connection to a server whose certificate `ca_file` vouches for."""
    context = ssl.create_default_context(cafile=str(ca_file))
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


@contextmanager
def connected(port: int, hello: bytes = HELLO, *, receive_bytes: int = 0) -> Iterator[Connection]:
    """A connection that has sent `hello`."""
    with socket.socket() as peer:
        peer.settimeout(DEADLINE_S)
        if receive_bytes:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        peer.connect(("127.0.0.1", port))
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(peer)
        connection.send(hello)
        yield connection
