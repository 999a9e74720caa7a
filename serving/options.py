"""Limits of a server's connections, each with the reason for its number."""

# The largest message either way; the contract states it.
MESSAGE_BYTES_MAX = 4 * 1024 * 1024

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    # On by default, it lets a second server bind the same port in silence and take half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # One client's share: more streams wait in the client instead of taking memory here.
    ("grpc.max_concurrent_streams", 256),
    # On by default, it resets the streams above that number instead of letting them wait: calls would fail in bursts.
    ("grpc.http.overload_protection", 0),
    # Both are needed: the first is advertised and refuses some of what exceeds it, the second refuses all. Four times
    # the largest status, room for a key and trace context.
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    # A peer that connects and says nothing; a handshake takes milliseconds.
    ("grpc.server_handshake_timeout_ms", 4_000),
    # Connections are replaced every few minutes, so that calls spread over servers added since. Streams are cut with
    # them and resume by cursor; 30 s lets unary calls end.
    ("grpc.max_connection_idle_ms", 5 * 60_000),
    ("grpc.max_connection_age_ms", 5 * 60_000),
    ("grpc.max_connection_age_grace_ms", 30_000),
    # A client that vanished without a word gives back its streams within 80 s.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A client may ping every 30 s, with or without a call open; the third ping in excess ends its connection.
    ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 2),
)

# Of the address for probes, where anybody may connect and nobody needs to stay: a kubelet connects for each probe, a
# balancer that watches connects again. Whoever fills it keeps a probe out for a few seconds, not for minutes.
PROBES_OPTIONS: tuple[tuple[str, int], ...] = (
    # Less than a kubelet takes to give up: three probes, ten seconds apart. A probe itself takes milliseconds.
    ("grpc.max_connection_idle_ms", 10_000),
    # Of those who keep a call open, as a watcher does. What is left of a unary call is milliseconds.
    ("grpc.max_connection_age_ms", 60_000),
    ("grpc.max_connection_age_grace_ms", 1_000),
)


def probes_options(connections_max: int) -> tuple[tuple[str, int], ...]:
    """For so many connections, none of which stays."""
    replaced = {name for name, _ in PROBES_OPTIONS}
    kept = [option for option in server_options(connections_max) if option[0] not in replaced]
    return (*kept, *PROBES_OPTIONS)


def server_options(connections_max: int) -> tuple[tuple[str, int], ...]:
    """For so many connections; whoever comes when they are there is closed at once."""
    return (*SERVER_OPTIONS, ("grpc.max_allowed_incoming_connections", connections_max))
