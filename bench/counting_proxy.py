"""A TCP proxy that counts what passes, both ways: the bytes that a call really puts on the wire."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK_BYTES = 256 * 1024


class CountingProxy(socketserver.ThreadingTCPServer):
    """Listens on a free port of loopback and passes everything on to `upstream`, host:port."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self.upstream = host, int(port)
        self.bytes_passed = 0
        self._counting = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Passing)

    @property
    def target(self) -> str:
        host, port = self.socket.getsockname()
        return f"{host}:{port}"

    def pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        """Until the source ends, or either of them breaks."""
        try:
            while chunk := source.recv(CHUNK_BYTES):
                with self._counting:
                    self.bytes_passed += len(chunk)
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # whoever is left hears of it by the end of its own connection
            source.close()
            sink.close()


class _Passing(socketserver.BaseRequestHandler):
    server: CountingProxy

    def handle(self) -> None:
        try:
            upstream = socket.create_connection(self.server.upstream)
        except OSError:
            return  # which ends the connection: as if the upstream had refused it
        with upstream:
            for each in (self.request, upstream):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # it must not add what a wire would not
            back = threading.Thread(target=self.server.pass_on, args=(upstream, self.request), daemon=True)
            back.start()
            self.server.pass_on(self.request, upstream)
            back.join()


@contextmanager
def counting_proxy(upstream: str) -> Iterator[CountingProxy]:
    with CountingProxy(upstream) as proxy:
        serving = threading.Thread(target=proxy.serve_forever, name="counting-proxy", daemon=True)
        serving.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            serving.join()
