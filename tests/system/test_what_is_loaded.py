"""What a command loads before it does anything: nothing that it has no use for, so that it answers at once."""

import json
import sys

import pytest

import omen_server.cli
import riskcast_server.cli
import serving
from serving.commands import Table, found
from tests.system.forked import places
from tests.system.processes import run

# Does as the command does, and tells what was loaded once that has ended.
TOLD = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.__stdout__))
from {module}.cli import main
sys.argv[0] = "command"
main()
"""
# Nobody listens there: the command has loaded all that it needs to call a server.
NOBODY = "127.0.0.1:1"

OF_A_SERVER = {
    "cryptography",  # without a certificate
    "grpc_health.v1",
    "grpc_reflection.v1alpha",
    "ledger",
    "omen_server.app",
    "omen_server.demo",
    "omen_server.domain",
    "opentelemetry",
    "riskcast_server.app",
    "riskcast_server.store",
    "serving.checking.checks",
    "serving.server",
}
# (package of the command, command) -> what it must not load
UNUSED = {
    ("omen_server", ("--version",)): OF_A_SERVER - {"ledger", "omen_server.domain"} | {"omen_server.settings"},
    ("omen_server", ("delivery", "status")): OF_A_SERVER,
    ("omen_server", ("signal", "get", "OMEN-000000000000")): OF_A_SERVER,
    ("omen_server", ("emit", "-")): OF_A_SERVER,
    ("riskcast_server", ("status",)): OF_A_SERVER,
    ("riskcast_server", ("signals", "count")): OF_A_SERVER,
    ("riskcast_server", ("keys", "list", "--file", "there-is-none")): OF_A_SERVER | {"grpc_status"},
    ("omen_server", ("ledger", "ls", "--dir", "there-is-none")): OF_A_SERVER - {"ledger"},
}


@pytest.mark.parametrize(("module", "command"), UNUSED, ids=[" ".join(command) for _, command in UNUSED])
def test_a_command_loads_nothing_that_only_others_need(module: str, command: tuple[str, ...]) -> None:
    settings = {"OMEN_LISTEN": NOBODY, "RISKCAST_LISTEN": NOBODY}
    ended = run(sys.executable, "-c", TOLD.format(module=module), *command, given="{}", **settings)
    loaded = json.loads(ended.stdout.splitlines()[-1])
    needless = {each for each in loaded for name in UNUSED[module, command] if f"{each}.".startswith(f"{name}.")}
    assert needless == set(), ended.stderr


def test_a_server_in_plaintext_loads_no_cryptography_and_neither_server_the_demo() -> None:
    program = "import sys, {module}.cli.serve; print(*sys.modules)"
    for module in ("omen_server", "riskcast_server"):
        loaded = run(sys.executable, "-c", program.format(module=module)).stdout.split()
        assert f"{module}.app" in loaded
        assert {"cryptography", "omen_server.demo", "serving.checking.checks", "serving.pem"}.isdisjoint(loaded)


@pytest.mark.parametrize("table", [omen_server.cli.COMMANDS, riskcast_server.cli.COMMANDS], ids=["omen", "riskcast"])
def test_every_command_is_where_the_table_says_and_says_what_it_does(table: Table) -> None:
    for place in places(table):
        assert found(place).__doc__, place


def test_whatever_serving_offers_is_there() -> None:
    assert [name for name in serving.__all__ if not hasattr(serving, name)] == []
    assert not hasattr(serving, "nothing_of_the_kind")
