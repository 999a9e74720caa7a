"""Whether spans are recorded, and where they go. OpenTelemetry is an extra, loaded only where a collector is set."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit

from serving.settings import SettingsRefused
from serving.telemetry.traces import Spans

PATH = "/v1/traces"  # where collectors take them


@asynccontextmanager
async def recorded(maybe_endpoint: str | None, service: str) -> AsyncIterator[Spans | None]:
    """What records the spans of `service`, "omen" or "riskcast", until the end of the block; None without a collector.

    Raises SettingsRefused.
    """
    if maybe_endpoint is None:
        yield None
        return
    async with recording_to(maybe_endpoint, service) as spans:
        yield spans


def recording_to(endpoint: str, service: str) -> AbstractAsyncContextManager[Spans]:
    """To be entered, or not: whoever asks learns that a server could. Raises SettingsRefused."""
    setting = f"{service.upper()}_TRACES_ENDPOINT"
    url = full(endpoint, setting)
    try:
        from serving.telemetry.spans import recording
    except ImportError as error:
        message = f"{setting} needs OpenTelemetry: pip install 'omen-riskcast[traces]'"
        raise SettingsRefused(message) from error
    return recording(url, service)


def full(endpoint: str, setting: str) -> str:
    """With the usual path where it has none. Raises SettingsRefused, without the value.

    Secrets belong into OTEL_EXPORTER_OTLP_HEADERS: the exporter logs the URL.
    """
    try:
        url = urlsplit(endpoint)
        is_usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
        is_usable = is_usable and not ("@" in url.netloc or url.query or url.fragment)
    except ValueError:
        is_usable = False
    if not is_usable:
        raise SettingsRefused(
            f"{setting}: expected http://host:port or https://host:port, without a password or a query"
        )
    return url.geturl() if url.path.strip("/") else url._replace(path=PATH).geturl()
