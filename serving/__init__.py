"""How both servers meet the network: listening, TLS, keys, health, errors as statuses, draining, logs, metrics.

What is offered here is loaded when it is first asked for: a command that calls a server waits for none of what serves.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.addresses import ListenError
    from serving.channels import channel, connected
    from serving.lifecycle import run, serve_until_signalled, stop_signals, write_port_file
    from serving.server import Mount, Running, mount, serve
    from serving.telemetry.exposition import exposed
    from serving.telemetry.logs import configure_logging

__all__ = [
    "ListenError",
    "Mount",
    "Running",
    "channel",
    "configure_logging",
    "connected",
    "exposed",
    "mount",
    "run",
    "serve",
    "serve_until_signalled",
    "stop_signals",
    "write_port_file",
]

_PLACES = {
    "serving.addresses": ("ListenError",),
    "serving.channels": ("channel", "connected"),
    "serving.lifecycle": ("run", "serve_until_signalled", "stop_signals", "write_port_file"),
    "serving.server": ("Mount", "Running", "mount", "serve"),
    "serving.telemetry.exposition": ("exposed",),
    "serving.telemetry.logs": ("configure_logging",),
}


def __getattr__(name: str) -> object:
    for place, names in _PLACES.items():
        if name in names:
            globals()[name] = offered = getattr(import_module(place), name)
            return offered
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
