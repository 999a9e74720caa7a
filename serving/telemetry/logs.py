"""Logs: one line per event on stderr, JSON for machines, colours for people.

Our own lines are rendered and written by structlog alone; those of other libraries (gRPC, asyncio, warnings) come by
one handler of the standard library, and look the same.
"""

import json
import logging
import os
import time
from functools import lru_cache
from typing import Protocol

import structlog
from structlog.contextvars import merge_contextvars
from structlog.processors import format_exc_info
from structlog.typing import EventDict

from serving.telemetry.output import STDERR, Output, occupy_standard_descriptors
from serving.telemetry.withheld import withhold, without_secrets
from serving.terminal import visible

# A message of 256 records names them in 55 KiB at most. A longer line says too much in one of its texts.
LINE_CHARS_MAX = 64 * 1024
# Of such a line: a traceback with what is said at its end.
TEXT_CHARS_MAX = 8 * 1024

# What every record of the standard library has; whatever else it has was said by `extra`.
STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class Render(Protocol):
    def __call__(self, name: str, level: str, event: EventDict) -> bytes:
        """The line of an event of the logger `name`."""


def configure_logging() -> None:
    """Sends structlog, the standard library's loggers (gRPC's among them) and warnings to stderr.

    Tracebacks are text without the values of local variables: those may hold secrets.
    """
    occupy_standard_descriptors()
    render = console_lines() if os.isatty(STDERR) else json_lines()
    output = Output(STDERR, lambda count: render(__name__, "warning", {"event": "log_lines_lost", "count": count}))
    logging.basicConfig(level=logging.INFO, handlers=[ForeignLines(render, output)], force=True)
    logging.captureWarnings(True)
    withhold()

    def line(logger: "Lines", level: str, event: EventDict) -> bytes:
        return render(logger.name, level, event)

    structlog.configure(
        processors=[merge_contextvars, line],
        logger_factory=lambda name="": Lines(name, output),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )


class Lines:
    """What structlog hands a rendered line to."""

    def __init__(self, name: str, output: Output) -> None:
        self.name = name
        self.info = self.warning = self.error = self.critical = output.write


class ForeignLines(logging.Handler):
    """Lines of those who log by the standard library."""

    def __init__(self, render: Render, output: Output) -> None:
        super().__init__()
        self._render = render
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        record = without_secrets(record)
        event = {name: value for name, value in vars(record).items() if name not in STANDARD}
        event["event"] = message_of(record)
        if record.exc_info:
            event["exc_info"] = record.exc_info
        merge_contextvars(None, "", event)
        self._output.write(self._render(record.name, record.levelname.lower(), event))


def message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # arguments that do not fit are no reason to lose the line
        return f"{record.msg} {record.args!r}"


def json_lines() -> Render:
    """In ASCII: whatever a text holds, it moves no terminal that shows the file."""
    now = Clock()

    def line(name: str, level: str, event: EventDict) -> bytes:
        with_traceback(event)
        # The time comes first, so that lines of several files are sorted as texts. By hand, it costs a third less.
        head = f'{{"timestamp":"{now()}",{what(level, name, str(event.pop("event")))}'
        fields = encode(event)
        if len(fields) > LINE_CHARS_MAX:
            fields = encode(shortened(event))
        return f"{head},{fields[1:]}\n".encode() if event else f"{head}}}\n".encode()

    return line


@lru_cache(maxsize=256)  # our own events are fewer; those of other libraries are hardly ever the same
def what(level: str, name: str, said: str) -> str:
    return f'"level":"{level}","logger":{encode(name)},"event":{encode(short(said))}'


def console_lines() -> Render:
    now = Clock()
    render = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)

    def line(name: str, level: str, event: EventDict) -> bytes:
        with_traceback(event)
        event = {"timestamp": now(), "level": level, "logger": name, **shortened(event)}
        told = render(None, level, {key: readable(value, key) for key, value in event.items()})
        return f"{told}\n".encode("utf-8", "backslashreplace")

    return line


def with_traceback(event: EventDict) -> None:
    if "exc_info" in event:
        format_exc_info(None, "", event)


class Clock:
    """The time as text, UTC. All of a second but its fraction is made once."""

    def __init__(self) -> None:
        self._known = (0, "")

    def __call__(self) -> str:
        second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        known, text = self._known
        if known != second:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._known = (second, text)
        return f"{text}.{nanoseconds // 1_000:06d}Z"


def shortened(event: EventDict) -> EventDict:
    """Without what is too long of any field; of a list that is too long, a text is left."""
    texts = ((key, value, value if isinstance(value, str) else encode(value)) for key, value in event.items())
    return {key: value if len(text) <= TEXT_CHARS_MAX else short(text) for key, value, text in texts}


def short(text: str) -> str:
    """The beginning and the end of a text that is too long."""
    half = TEXT_CHARS_MAX // 2
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[:half]} […] {text[-half:]}"


def readable(value: object, key: str) -> object:
    """A text that moves no terminal; only a traceback has lines."""
    return visible(value, kept="\n" if key == "exception" else "") if isinstance(value, str) else value


def shown(value: object) -> str:
    """What JSON does not know, as Python shows it."""
    return short(repr(value))


encode = json.JSONEncoder(default=shown, separators=(",", ":")).encode
