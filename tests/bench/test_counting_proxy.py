"""Bytes are counted both ways, and pass unchanged."""

import socket
import threading

from bench.counting_proxy import counting_proxy


def test_what_passes_is_counted_both_ways_and_the_ends_are_passed_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(10)

        def answer() -> None:
            connection, _ = upstream.accept()
            with connection:
                while said := connection.recv(65536):
                    connection.sendall(said[:1] * 3)

        answering = threading.Thread(target=answer)
        answering.start()
        with counting_proxy(f"127.0.0.1:{upstream.getsockname()[1]}") as proxy:
            host, _, port = proxy.target.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=10) as client:
                client.sendall(b"hello")
                assert client.recv(3, socket.MSG_WAITALL) == b"hhh"
                client.shutdown(socket.SHUT_WR)
                assert client.recv(1) == b""
            assert proxy.bytes_passed == len(b"hello") + len(b"hhh")
        answering.join(10)


def test_an_upstream_that_is_away_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with counting_proxy(f"127.0.0.1:{port}") as proxy:
        host, _, at = proxy.target.rpartition(":")
        with socket.create_connection((host, int(at)), timeout=10) as client:
            assert client.recv(1) == b""
