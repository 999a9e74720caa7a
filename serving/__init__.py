"""How both servers meet the network: listening, health, reflection, errors as statuses, draining, logs."""

from serving.addresses import ListenError
from serving.channel import channel, connected
from serving.lifecycle import run, serve_until_signalled, stop_signals, write_port_file
from serving.server import Mount, Running, serve
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
    "run",
    "serve",
    "serve_until_signalled",
    "stop_signals",
    "write_port_file",
]
