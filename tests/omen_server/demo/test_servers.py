"""The demo's servers get ports that nothing else uses."""

import socket

from omen_server.demo.servers import PORTS, free_ports, is_free


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)


def test_free_ports_differ_and_are_not_those_the_system_hands_out() -> None:
    ports = free_ports(8)
    assert len(set(ports)) == 8
    assert set(ports) <= set(PORTS)
