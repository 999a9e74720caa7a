"""Without keys a server listens where only this machine can reach it, unless its operator says otherwise."""

import ipaddress

from serving.addresses import UNIX, ListenError, host_and_port


def refuse_exposure(listen: str) -> None:
    """Raises ListenError if other machines could reach `listen`."""
    if listen.startswith(UNIX):
        return
    try:
        host, _ = host_and_port(listen)
    except ValueError as error:
        raise ListenError(f"cannot listen on {listen}: {error}") from error
    if not is_loopback(host):
        raise ListenError(
            f"{listen} can be reached from other machines and there are no keys: pass --insecure to allow"
        )


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name may resolve to anything
        return False
