"""What other libraries must not tell."""

import asyncio
import logging
import re

DECODER = "grpc._cython.cygrpc"
SAID_OF_A_HEADER = "Invalid encoding on"
SAID_OF_ONE_WHO_LEFT = "ExecuteBatchError raised in core"  # while the answer was written to him

# They send spans with whatever OTEL_EXPORTER_OTLP_HEADERS holds, and quote settings, headers and a collector's answers.
SENDERS = {"opentelemetry", "urllib3", "requests"}
WITHHELD = "[withheld]"
# The texts of theirs that are told, with WITHHELD for what they quote.
TOLD = {
    "Exception while exporting %s.",
    "Failed to export %s batch code: %s, reason: %s",
    "Failed to export %s batch due to timeout, max retries or shutdown.",
    "Header format invalid! Header values in environment variables must be URL encoded per the OpenTelemetry Protocol "
    "Exporter specification or a comma separated list of name=value occurrences: %s",
    "Queue full, dropping %s.",
    "Transient error %s encountered while exporting %s batch, retrying in %.2fs.",
    "Unable to parse value for %s as integer. Defaulting to %s.",
}
HARMLESS = re.compile(r"[Ss]pans?|OTEL_[A-Z_]+")


def withhold() -> None:
    """gRPC logs the value of each header that is no UTF-8, with a traceback: it may be a key, and anybody may send it.

    The call has its own line. Of a path that is none, asyncio tells the rest; the line is `listener_replaced`. And it
    logs whoever left before the answer, as an error with a traceback: anybody may do that too, and clients with a
    deadline do.
    """
    logging.getLogger(DECODER).addFilter(tells_no_header)
    logging.getLogger(DECODER).addFilter(tells_of_none_who_left)
    logging.getLogger(asyncio.__name__).addFilter(tells_no_header)


def tells_no_header(record: logging.LogRecord) -> bool:
    told = (record.msg, *(record.exc_info or ()))
    is_of_a_path = any(isinstance(each, UnicodeDecodeError) for each in told)
    return not (is_of_a_path or str(record.msg).startswith(SAID_OF_A_HEADER))


def tells_of_none_who_left(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(SAID_OF_ONE_WHO_LEFT)


def without_secrets(record: logging.LogRecord) -> logging.LogRecord:
    """The record as it is; of the senders one that says where it comes from, and what is sure to be no secret."""
    if record.name.partition(".")[0] not in SENDERS:
        return record
    told = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname, "msg": text_of(record)}
    if record.exc_info and record.exc_info[0]:
        told["exception"] = f"{record.exc_info[0].__name__}: {WITHHELD}"
    return logging.makeLogRecord(told | {"said_at": f"{record.filename}:{record.lineno}"})


def text_of(record: logging.LogRecord) -> str:
    if record.msg not in TOLD or not isinstance(record.args, tuple):
        return WITHHELD
    try:
        return str(record.msg % tuple(map(harmless, record.args)))
    except (TypeError, ValueError):  # other arguments than this text has had
        return WITHHELD


def harmless(argument: object) -> object:
    """Of an error its kind: whether nobody listens or a certificate is wrong."""
    if argument is None or isinstance(argument, int | float):
        return argument
    if isinstance(argument, Exception):
        return f"{type(argument).__name__} {WITHHELD}"
    return argument if isinstance(argument, str) and HARMLESS.fullmatch(argument) else WITHHELD
