"""Whether the addresses of a server can be listened on, and when one is taken, whether the server itself runs there.

It is known by what it shows to anybody: its certificate, its services when asked for health, its metrics.
"""

import asyncio
import errno
import http.client
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.addresses import UNIX, check_port, host_and_port
from serving.channels import channel
from serving.checking.checks import Check, Outcome
from serving.pem import certificates, read_pair
from serving.settings import ServerSettings
from serving.tls import ServerTls

ASK_S = 2.0  # of a server on this machine
METRICS_BYTES_MAX = 1024 * 1024  # ours tell some hundred kilobytes
SOCKET_PATH_BYTES_MAX = 107  # of the kernel's 108, one ends the text

IsOurs = Callable[[], Awaitable[bool]]


async def check_addresses(settings: ServerSettings, listen: str, service: str) -> list[Check]:
    """Of each address that is set; `service` is one that only this kind of server has."""
    tls = settings.security().tls
    checks = [await check_address("address", listen, lambda: is_served(listen, service, tls))]
    if health := settings.health_listen:
        checks.append(await check_address("health address", health, lambda: is_served(health, service, None)))
    if metrics := settings.metrics_listen:
        prefix = str(settings.model_config["env_prefix"]).lower()
        told = check_address("metrics address", metrics, lambda: asyncio.to_thread(tells_metrics, metrics, prefix))
        checks.append(await told)
    return checks


async def check_address(name: str, listen: str, is_ours: IsOurs) -> Check:
    try:
        if await asyncio.to_thread(is_free, listen):
            return Check(name, Outcome.OK, f"{listen} can be listened on")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Check(name, Outcome.FAILED, f"cannot listen on {listen}: {reason}")
    if await is_ours():
        return Check(name, Outcome.OK, f"{listen} is in use by the running server")
    return Check(name, Outcome.FAILED, f"{listen} is in use, and not by this server")


def is_free(listen: str) -> bool:
    """False when something listens there. Raises OSError, ValueError when nobody could."""
    if listen.startswith(UNIX):
        return is_free_path(socket_path(listen))
    try:
        check_port(*host_and_port(listen))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    return True


def is_free_path(path: Path) -> bool:
    """A socket that nobody listens on any more is replaced; any other file is in the way."""
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise ValueError(f"its path is longer than {SOCKET_PATH_BYTES_MAX} bytes")
    path.parent.stat()
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "its folder cannot be written to")
    if not path.exists():
        return True
    if not path.is_socket():
        raise ValueError("there is a file that is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) != 0


def socket_path(listen: str) -> Path:
    return Path(listen.removeprefix(UNIX).removeprefix("//"))


async def is_served(listen: str, service: str, maybe_tls: ServerTls | None) -> bool:
    """Health is answered without a key; but over TLS this side does not know whom to believe."""
    if maybe_tls:
        return await asyncio.to_thread(shows_certificate, listen, maybe_tls)
    try:
        async with channel(listen) as asked:  # without waiting for it: something listens already
            request = health_pb2.HealthCheckRequest(service=service)
            await health_pb2_grpc.HealthStub(asked).Check(request, timeout=ASK_S)
    except grpc.aio.AioRpcError:
        return False
    return True


def shows_certificate(listen: str, tls: ServerTls) -> bool:
    """Whether the one there shows ours. Nothing is believed of it but that.

    Where it asks for one it is shown its own: that is what it shows its peers, too.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        [own, *_] = certificates(tls.cert_file, read_pair(tls.cert_file, tls.key_file).chain)
        if tls.client_ca_file:
            context.load_cert_chain(tls.cert_file, tls.key_file)
        with dialled(listen) as plain, context.wrap_socket(plain) as secure:
            return secure.getpeercert(binary_form=True) == own.public_bytes(Encoding.DER)
    except (OSError, ValueError):
        return False


def dialled(listen: str) -> socket.socket:
    """Raises OSError."""
    if not listen.startswith(UNIX):
        return socket.create_connection(host_and_port(listen), timeout=ASK_S)
    plain = socket.socket(socket.AF_UNIX)
    plain.settimeout(ASK_S)
    plain.connect(str(socket_path(listen)))
    return plain


def tells_metrics(listen: str, prefix: str) -> bool:
    """Whether there are metrics there whose names begin so."""
    connection = http.client.HTTPConnection(*host_and_port(listen), timeout=ASK_S)
    try:
        connection.request("GET", "/metrics")
        return f"# HELP {prefix}".encode() in connection.getresponse().read(METRICS_BYTES_MAX)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
