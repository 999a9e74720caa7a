"""Metrics over HTTP for whoever scrapes them: read-only, in plaintext and without keys, on an address of its own.

The library renders, the standard library serves, each request on a thread of its own beside the event loop. Here is
what neither does: few connections, little time for each, and an end that waits for no client. What nobody bounds is the
size of a request's headers: a client may send a hundred of 64 KiB while its time lasts.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread
from typing import Any, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from serving.addresses import ListenError, host_and_port

PATHS = ("/metrics", "/")

CONNECTIONS_MAX = 8  # two Prometheis and somebody who looks; what is beyond is closed at once
REQUEST_S = 10.0  # Prometheus itself gives up after ten seconds unless it is told otherwise
POLL_S = 0.1  # how soon the end of the block, or of somebody's time, is noticed
THREADS_S = 0.5  # for what is being rendered when the block ends: some 20 ms

App: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

log = structlog.get_logger(__name__)


@asynccontextmanager
async def exposed(registry: CollectorRegistry, maybe_listen: str | None) -> AsyncIterator[int]:
    """Serves the registry on host:port, port 0 for any; the bound port, 0 when nothing is served.

    Raises ListenError. Leaving the block ends it, whatever its clients do.
    """
    if maybe_listen is None:
        yield 0
        return
    server = listening(maybe_listen, telling(registry))
    thread = Thread(target=server.serve_forever, args=(POLL_S,), name="metrics", daemon=True)
    thread.start()
    try:
        log.info("metrics_served", port=server.server_port)
        yield server.server_port
    finally:
        await asyncio.to_thread(server.end)


def listening(listen: str, app: App) -> "MetricsServer":
    try:
        return MetricsServer(*host_and_port(listen), app)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ListenError(f"cannot listen on {listen} for metrics: {reason}") from error


def telling(registry: CollectorRegistry) -> App:
    """The library's application, at its usual path alone; a collector that fails is told to the log, not to clients."""
    metrics = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] not in PATHS:
            start_response("404 Not Found", [])
            return []
        try:
            told: Iterable[bytes] = metrics(environ, start_response)
        except Exception as bug:
            log.error("metrics_not_told", exc_info=bug)
            start_response("500 Internal Server Error", [])
            return []
        return told

    return answer


class Request(WSGIRequestHandler):
    """Says nothing on stderr."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


class MetricsServer(ThreadingMixIn, WSGIServer):
    """Bound when it is made. Its threads never keep the process alive."""

    daemon_threads = True

    def __init__(self, host: str, port: int, app: App) -> None:
        self.address_family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._began: dict[socket.socket, float] = {}  # open connections
        super().__init__((str(address[0]), int(address[1])), Request)
        self.set_app(app)

    def server_bind(self) -> None:
        """Without asking the DNS for our own name, as the standard library does: that may take seconds."""
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return len(self._began) < CONNECTIONS_MAX

    def process_request(self, request: Any, client_address: Any) -> None:
        self._began[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """By the thread that has answered."""
        super().shutdown_request(request)
        self._began.pop(request, None)

    def service_actions(self) -> None:
        """At every poll: ends those whose time is over."""
        overdue = time.monotonic() - REQUEST_S
        for request, began in list(self._began.items()):
            if began < overdue:
                cut(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left, or was cut, is no news; whatever fails while rendering is told above."""

    def end(self) -> None:
        """Takes no more, and cuts what is open. Not on the event loop."""
        self.shutdown()
        self.server_close()
        for request in list(self._began):
            cut(request)
        until = time.monotonic() + THREADS_S
        while self._began and time.monotonic() < until:
            time.sleep(POLL_S / 10)


def cut(request: socket.socket) -> None:
    """Whoever reads from it or writes to it goes on at once, and fails."""
    with suppress(OSError):  # it was closed meanwhile
        request.shutdown(socket.SHUT_RDWR)
