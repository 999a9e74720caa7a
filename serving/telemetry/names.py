"""How a line names the signals it is about: whoever looks for one of these ids finds every line of its life.

What comes from others is named only where it is well formed, and so is short and harmless.
"""

import re

from structlog.contextvars import bind_contextvars

from contract.identity import SIGNAL_ID
from contract.limits import TRACE_ID_DIGITS
from serving.telemetry.traces import maybe_parent

TRACE_ID = re.compile(f"[0-9a-f]{{{TRACE_ID_DIGITS}}}")


def signal_names(signal_id: str, deterministic_trace_id: str = "", traceparent: str = "") -> dict[str, str]:
    """The fields of a line about one signal. `trace_id` is that of the W3C trace which the event came from."""
    names = {}
    if SIGNAL_ID.fullmatch(signal_id):
        names["signal_id"] = signal_id
    if TRACE_ID.fullmatch(deterministic_trace_id):
        names["deterministic_trace_id"] = deterministic_trace_id
    if parent := maybe_parent(traceparent):
        names["trace_id"] = parent.trace_id
    return names


def bind_signal(signal_id: str, deterministic_trace_id: str = "", traceparent: str = "") -> None:
    """From now on every line of the running call names this signal."""
    bind_contextvars(**signal_names(signal_id, deterministic_trace_id, traceparent))
