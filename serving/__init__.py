"""How both servers meet the network: listening, TLS, keys, health, errors as statuses, draining, logs, metrics."""

from serving.addresses import ListenError
from serving.channel import channel, connected
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
