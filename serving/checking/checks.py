"""What the command `check` of both servers looks at, before a start or beside a running server.

Looking changes nothing that is stored. Each check is one line: what was seen, what speaks against it, or why it failed.
"""

import enum
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import grpc
from cryptography.x509 import Certificate
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.access.keys import ApiKey, read_keys
from serving.addresses import ListenError
from serving.channels import connected
from serving.checking import filesystems
from serving.console import Exit, Output, Printer, described, finish, run_command
from serving.exposure import is_exposed
from serving.health import READY, SERVING
from serving.pem import certificates, read_ca, read_pair
from serving.security import ClientSecurity, Security, SecurityRefused
from serving.settings import S, SettingsRefused, load
from serving.telemetry.collector import recording_to
from serving.tls import ServerTls

COLUMNS = ("check", "outcome", "seen")

EXPIRES_SOON = timedelta(days=14)  # a fortnight's holiday of the one who renews
SYNCS = 5  # the median of a few: the first may wait for what others have written
SYNCED_BYTES = 4096
CALL_TIMEOUT_S = 5.0  # of a peer that is there, and was waited for before
MIB = 1024 * 1024

REFUSALS = (ListenError, SecurityRefused, SettingsRefused, ValueError)

Seen = tuple[str, Sequence[str]]  # what was seen, and what speaks against it


class Outcome(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"  # it works, but not for ever, or not as somebody may expect
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `seen` is one line without secrets."""

    name: str
    outcome: Outcome
    seen: str


def run_checks(kind: type[S], checks_of: Callable[[S], AsyncIterator[Check]], output: Output) -> None:
    """The whole command: prints the checks of these settings, and ends with exit code 1 when one fails."""

    async def found() -> list[Check]:
        settings, first = check_settings(kind)
        return [first, *([each async for each in checks_of(settings)] if settings else [])]

    checks = run_command(found())
    with Printer(output, COLUMNS) as printer:
        for check in checks:
            printer.add({"check": check.name, "outcome": check.outcome.value, "seen": check.seen})
    finish(Exit.UNEXPECTED if any(check.outcome is Outcome.FAILED for check in checks) else Exit.OK)


def checked(name: str, look: Callable[[], Seen]) -> Check:
    """What `look` sees; what it raises is why the check failed."""
    try:
        seen, flaws = look()
    except OSError as error:
        return Check(name, Outcome.FAILED, f"{error.filename or 'the system'}: {error.strerror or error}")
    except REFUSALS as error:
        return Check(name, Outcome.FAILED, "; ".join(str(error).splitlines()))
    return Check(name, Outcome.WARNING if flaws else Outcome.OK, "; ".join([seen, *flaws]))


def check_settings(kind: type[S]) -> tuple[S | None, Check]:
    """The settings too, if they can be read. Values are not shown: some are secret."""
    found: list[S] = []

    def look() -> Seen:
        found.append(load(kind))
        names = sorted(f"{kind.model_config['env_prefix']}{name.upper()}" for name in found[0].model_fields_set)
        return ", ".join(names) or "all by default", ()

    check = checked("settings", look)
    return (found[0] if found else None), check


def check_listen(listen: str, security: Security) -> Check:
    """Whether other machines reach the server, and what then is missing."""

    def look() -> Seen:
        if not is_exposed(listen):
            return f"{listen}, this machine alone", ()
        flaws = [] if security.keys_file else ["without keys, so it starts with --insecure alone"]
        return f"{listen}, other machines too", flaws + ([] if security.tls else ["in plaintext, keys included"])

    return checked("listen", look)


def check_directory(name: str, path: Path) -> Check:
    """Whether files can be written there and synced; of one that is yet to be made, the folder it will be in."""

    def look() -> Seen:
        place = existing(path)
        milliseconds = sync_seconds(place) * 1e3
        flaw = filesystems.maybe_flaw(place)
        to_make = "" if place == path else ", yet to be made"
        return f"{path}{to_make}: synced in {milliseconds:.3g} ms", [flaw] if flaw else []

    return checked(name, look)


def existing(path: Path) -> Path:
    """The path, or the innermost of the folders around it that is there."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def sync_seconds(directory: Path) -> float:
    """How long a write takes to reach the disk. Raises OSError. The file has no name, and nothing of it stays."""
    seconds = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            file.write(b"\0" * SYNCED_BYTES)
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def check_space(name: str, path: Path, bytes_min: int) -> Check:
    """Whether more than `bytes_min`, below which nothing is taken, is free."""

    def look() -> Seen:
        told = os.statvfs(existing(path))
        free = told.f_bavail * told.f_frsize
        if free < bytes_min:
            raise ValueError(f"{free // MIB} MiB free; below {bytes_min // MIB} MiB nothing is taken")
        flaws = ["it will soon be full"] if free < 2 * bytes_min else []
        return f"{free // MIB} MiB free, at least {bytes_min // MIB} needed", flaws

    return checked(name, look)


def check_keys(maybe_file: Path | None, now: datetime) -> Check:
    def look() -> Seen:
        if maybe_file is None:
            return "no file of keys: whoever reaches the server may call", ()
        keys = read_keys(maybe_file)
        is_open = maybe_file.stat().st_mode & 0o022
        others = ["others may write to it, and let themselves in"] if is_open else []
        return f"{len(keys)} in {maybe_file}", [*others, *flaws_of(keys, now)]

    return checked("keys", look)


def flaws_of(keys: Sequence[ApiKey], now: datetime) -> list[str]:
    expired = [key.id for key in keys if key.is_expired(now)]
    expiring = [key.id for key in keys if key.is_expired(now + EXPIRES_SOON) and key.id not in expired]
    flaws = ["nobody may call"] if len(expired) == len(keys) else []
    flaws += [f"expired: {', '.join(expired)}"] if expired else []
    return flaws + ([f"expiring within {EXPIRES_SOON.days} days: {', '.join(expiring)}"] if expiring else [])


def check_tls(maybe_tls: ServerTls | None, now: datetime) -> Check:
    """Whether the files can be read, belong together, and are valid now and for a while."""

    def look() -> Seen:
        if maybe_tls is None:
            return "no certificate: plaintext", ()
        tls = maybe_tls
        [own, *_] = certificates(tls.cert_file, read_pair(tls.cert_file, tls.key_file).chain)
        flaws = [*validity(tls.cert_file, [own], now)]
        if tls.client_ca_file:
            flaws += validity(tls.client_ca_file, certificates(tls.client_ca_file, read_ca(tls.client_ca_file)), now)
        clients = "clients show certificates" if tls.client_ca_file else "clients need no certificate"
        return f"{tls.cert_file} until {own.not_valid_after_utc:%Y-%m-%d}, {clients}", flaws

    return checked("TLS", look)


def check_traces(maybe_endpoint: str | None, service: str) -> Check:
    """Whether spans could be sent. Nothing is sent, and the address is not shown."""

    def look() -> Seen:
        if maybe_endpoint is None:
            return "no collector: no spans are recorded", ()
        recording_to(maybe_endpoint, service)
        return "a collector is set, and OpenTelemetry is installed", ()

    return checked("traces", look)


def validity(path: Path, found: Sequence[Certificate], now: datetime) -> list[str]:
    """What an operator should know of the longest valid one. Raises ValueError when none is valid."""
    valid = [each for each in found if each.not_valid_before_utc <= now < each.not_valid_after_utc]
    if not valid:
        raise ValueError(
            f"{path} is valid from {found[0].not_valid_before_utc} to {found[0].not_valid_after_utc} alone"
        )
    ends = max(each.not_valid_after_utc for each in valid)
    return [f"{path} expires within {EXPIRES_SOON.days} days"] if ends <= now + EXPIRES_SOON else []


async def check_peer(
    name: str,
    target: str,
    security: ClientSecurity,
    ask: Callable[[grpc.aio.Channel], Awaitable[Seen]],
    without: str = "",
) -> Check:
    """Whether the server there is ready, and takes our key: health answers without one, so something is asked too.

    `ask` says what it saw and what speaks against it, and raises AioRpcError. `without` says what the server does while
    its peer is not there.
    """
    try:
        async with connected(target, security) as channel:
            request = health_pb2.HealthCheckRequest(service=READY)
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=CALL_TIMEOUT_S)
            if answer.status != SERVING:
                return Check(name, Outcome.FAILED, "; ".join(filter(None, (f"{target} is not ready", without))))
            seen, flaws = await ask(channel)
            outcome = Outcome.WARNING if flaws else Outcome.OK
            return Check(name, outcome, "; ".join([f"{target}: {seen}", *flaws]))
    except grpc.aio.AioRpcError as error:
        return Check(name, Outcome.FAILED, "; ".join(filter(None, (f"{target}: {described(error)}", without))))
    except SecurityRefused as error:
        return Check(name, Outcome.FAILED, str(error))
