"""Without keys a server listens where only this machine can reach it, unless its operator says otherwise."""

import ipaddress

import structlog

from serving.addresses import UNIX, ListenError, host_and_port
from serving.security import Security

log = structlog.get_logger(__name__)


def refuse_exposure(listen: str) -> None:
    """Raises ListenError if other machines could reach `listen`."""
    if is_exposed(listen):
        raise ListenError(
            f"{listen} can be reached from other machines and there are no keys: pass --insecure to allow"
        )


def warn_of_exposure(listen: str, security: Security) -> None:
    """One line in the log if what other machines send to `listen` can be read or changed on its way, keys included."""
    if security.tls is None and is_exposed(listen):
        log.warning("exposed_without_tls", listen=listen, has_keys=security.keys_file is not None)


def is_exposed(listen: str) -> bool:
    """Whether other machines could reach it. Raises ListenError for what is no address."""
    if listen.startswith(UNIX):
        return False
    try:
        host, _ = host_and_port(listen)
    except ValueError as error:
        raise ListenError(f"cannot listen on {listen}: {error}") from error
    return not is_loopback(host)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name may resolve to anything
        return False
