"""`omen serve`: what it refuses to start with, in one line, and how it ends."""

import signal
from pathlib import Path

import pytest

from tests.omen_server.command import omen_command
from tests.omen_server.running import closed_port, omen
from tests.system.processes import Server, spawned


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "omen.example:0"])
async def test_listening_beyond_this_machine_without_keys_is_refused(tmp_path: Path, listen: str) -> None:
    ended = await omen_command("serve", OMEN_LISTEN=listen, OMEN_LEDGER_DIR=str(tmp_path / "ledger"))
    assert (ended.code, ended.out) == (2, "")
    assert "--insecure" in ended.err
    assert not (tmp_path / "ledger").exists()


async def test_it_is_allowed_when_told_insecure_and_the_port_file_names_the_port(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    arguments = ("--insecure", "--port-file", str(port_file))
    server = Server("omen_server", {"OMEN_LEDGER_DIR": str(tmp_path / "ledger")}, arguments, host="0.0.0.0")
    await server.start()
    assert await server.stop() == 0
    assert port_file.read_text("utf-8") == f"{server.port}\n"
    assert not any("Traceback" in line for line in server.log)


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1:99999"])
async def test_what_is_no_address_is_a_line_and_a_usage_error(tmp_path: Path, listen: str) -> None:
    ended = await omen_command("serve", OMEN_LISTEN=listen, OMEN_LEDGER_DIR=str(tmp_path))
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1


async def test_a_port_in_use_is_a_line_and_a_usage_error(tmp_path: Path) -> None:
    async with omen(tmp_path / "one", closed_port()) as server:
        listen = f"127.0.0.1:{server.port}"
        ended = await omen_command("serve", OMEN_LISTEN=listen, OMEN_LEDGER_DIR=str(tmp_path / "other"))
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1
    assert listen in ended.err


async def test_a_ledger_that_another_omen_has_is_a_line_and_no_start(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()):
        ended = await omen_command("serve", OMEN_LISTEN="127.0.0.1:0", OMEN_LEDGER_DIR=str(tmp_path))
    assert (ended.code, ended.out) == (5, "")
    assert len(ended.err.splitlines()) == 1
    assert "another writer" in ended.err


async def test_a_ledger_directory_that_cannot_be_made_is_a_line_and_no_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = await omen_command("serve", OMEN_LISTEN="127.0.0.1:0", OMEN_LEDGER_DIR=str(tmp_path / "file" / "ledger"))
    assert (ended.code, ended.out) == (5, "")
    assert len(ended.err.splitlines()) == 1


async def test_a_delivery_db_that_cannot_be_read_is_a_line_and_no_start(tmp_path: Path) -> None:
    (tmp_path / "delivery.db").write_bytes(b"not a database" * 100)
    ended = await omen_command("serve", OMEN_LISTEN="127.0.0.1:0", OMEN_LEDGER_DIR=str(tmp_path))
    assert (ended.code, ended.out) == (7, "")
    assert ended.err.splitlines()[-1].startswith(f"{tmp_path / 'delivery.db'}: whether delivery is paused")
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_0(tmp_path: Path, number: signal.Signals) -> None:
    server = Server("omen_server", {"OMEN_LEDGER_DIR": str(tmp_path)}, begin=spawned)
    await server.start()
    assert await server.end(number) == 0
    assert not any("Traceback" in line for line in server.log)
