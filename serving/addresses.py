"""Where a server listens.

Each check is made again by gRPC itself, whose bind decides. They are here because gRPC cannot say why it failed, and
because it deletes a socket file that another server listens on.
"""

import socket
import stat
from pathlib import Path

import grpc

UNIX = "unix:"


class ListenError(Exception):
    """The address cannot be listened on; the text is one line for the operator."""


def bind(
    server: grpc.aio.Server, listen: str, maybe_credentials: grpc.ServerCredentials | None = None
) -> tuple[int, str]:
    """The bound port (0 for a unix socket) and the target to dial. Raises ListenError."""
    try:
        if listen.startswith(UNIX):
            check_socket_file(Path(listen.removeprefix(UNIX).removeprefix("//")))
            add_port(server, listen, maybe_credentials)
            return 0, listen
        host, port = host_and_port(listen)
        check_port(host, port)
        bound = add_port(server, listen, maybe_credentials)
        return bound, f"{listen.rpartition(':')[0]}:{bound}"
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ListenError(f"cannot listen on {listen}: {reason}") from error


def add_port(server: grpc.aio.Server, listen: str, maybe_credentials: grpc.ServerCredentials | None) -> int:
    return server.add_secure_port(listen, maybe_credentials) if maybe_credentials else server.add_insecure_port(listen)


def host_and_port(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and int(port) < 2**16):
        raise ValueError("expected host:port or unix:path")
    return host.removeprefix("[").removesuffix("]"), int(port)


def check_port(host: str, port: int) -> None:
    """Raises OSError with the system's reason."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does: closed connections may linger
        probe.bind(address)


def check_socket_file(path: Path) -> None:
    """Raises ValueError if a server listens on it; what a dead one left is replaced."""
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise ValueError("another server listens on it")
