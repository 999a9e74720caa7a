"""`omen check` and `riskcast check`: a table of what would go wrong, and an exit code."""

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import omen_server.cli
import omen_server.cli.check
import riskcast_server.cli
import riskcast_server.cli.check
from contract.scopes import Scope
from omen_server.cli.check import delivery_of, ledger_of
from omen_server.delivery_file import open_delivery_file
from omen_server.pause import PauseSwitch
from omen_server.settings import OmenSettings
from riskcast_server.settings import RiskcastSettings
from serving.checking.checks import Check, Outcome, Seen, checked
from serving.security import SecurityRefused
from tests.omen_server.running import closed_port, omen
from tests.riskcast_server.running import riskcast
from tests.serving.access.keyring import Keyring

APPS = {"OMEN": omen_server.cli.app, "RISKCAST": riskcast_server.cli.app}


OF_OMEN = ["listen", "address", "disk", "ledger", "delivery", "free space", "keys", "TLS", "traces", "RiskCast"]
OF_RISKCAST = ["listen", "address", "disk", "free space", "store", "keys", "TLS", "traces", "OMEN"]


@dataclass(frozen=True)
class Both:
    """Servers that ask for keys, and files with keys that are good for the one or the other."""

    omen_port: int
    riskcast_target: str
    keys: Path
    key_files: dict[str, Path]
    directory: Path

    async def of_omen(self, key_id: str) -> dict[str, Check]:
        settings = OmenSettings(
            listen="127.0.0.1:0",
            ledger_dir=self.directory / "ledger",
            riskcast_target=self.riskcast_target,
            riskcast_api_key_file=self.key_files[key_id],
            api_keys_file=self.keys,
        )
        return {check.name: check async for check in omen_server.cli.check.checks_of(settings)}

    async def of_riskcast(self, key_id: str) -> dict[str, Check]:
        settings = RiskcastSettings(
            listen="127.0.0.1:0",
            database_url=f"sqlite:///{self.directory}/riskcast.db",
            omen_targets=(f"127.0.0.1:{self.omen_port}",),
            omen_api_key_file=self.key_files[key_id],
            api_keys_file=self.keys,
        )
        return {check.name: check async for check in riskcast_server.cli.check.checks_of(settings)}


@asynccontextmanager
async def both(directory: Path) -> AsyncIterator[Both]:
    ring = Keyring(directory / "keys.json").add("delivers", Scope.INGEST).add("replays", Scope.LEDGER_READ)
    ring.add("prunes_too", Scope.INGEST, Scope.STATS_READ)
    files = {key_id: directory / f"{key_id}.key" for key_id in ring.texts}
    for key_id, file in files.items():
        file.write_text(ring.texts[key_id], "utf-8")
    async with (
        riskcast(directory, api_keys_file=ring.path, reconcile_interval=0) as store,
        omen(directory / "ledger", closed_port(), api_keys_file=ring.path) as ledger,
    ):
        yield Both(ledger.port, store.target, ring.path, files, directory)


async def test_two_servers_that_let_each_other_in_pass_every_check(tmp_path: Path) -> None:
    async with both(tmp_path) as servers:
        of_omen, of_riskcast = await servers.of_omen("prunes_too"), await servers.of_riskcast("replays")
    assert list(of_omen) == OF_OMEN
    assert list(of_riskcast) == OF_RISKCAST
    failed = [check for check in (*of_omen.values(), *of_riskcast.values()) if check.outcome is Outcome.FAILED]
    assert failed == []


async def test_a_key_that_is_good_for_something_else_fails_the_check_of_the_peer_alone(tmp_path: Path) -> None:
    async with both(tmp_path) as servers:
        of_omen, of_riskcast = await servers.of_omen("replays"), await servers.of_riskcast("delivers")
    for checks, peer in ((of_omen, "RiskCast"), (of_riskcast, "OMEN")):
        assert [check.name for check in checks.values() if check.outcome is Outcome.FAILED] == [peer]
        assert "SCOPE_MISSING" in checks[peer].seen


async def test_a_key_that_may_deliver_and_not_read_stats_is_a_warning_that_names_the_scope(tmp_path: Path) -> None:
    async with both(tmp_path) as servers:
        checks = {key_id: (await servers.of_omen(key_id))["RiskCast"] for key_id in ("delivers", "prunes_too")}
    assert (checks["prunes_too"].outcome, "lacks" in checks["prunes_too"].seen) == (Outcome.OK, False)
    assert checks["delivers"].outcome is Outcome.WARNING
    assert "lets this OMEN deliver; its key lacks the scope stats.read" in checks["delivers"].seen


async def test_asking_whether_omen_may_deliver_stores_nothing(tmp_path: Path) -> None:
    async with riskcast(tmp_path, reconcile_interval=0) as store:
        settings = OmenSettings(listen="127.0.0.1:0", ledger_dir=tmp_path / "ledger", riskcast_target=store.target)
        checks = {check.name: check async for check in omen_server.cli.check.checks_of(settings)}
        assert checks["RiskCast"].outcome is Outcome.OK
        assert await store.count() == 0


def garbled_identity(ledger: Path) -> None:
    (ledger / "ledger.json").write_text('{"format": 99}', "utf-8")


def missing_identity(ledger: Path) -> None:
    (ledger / "2026-01-29").mkdir()


def garbled_pause(ledger: Path) -> None:
    (ledger / "delivery.db").write_bytes(b"xxxx" * 256)


def fifo_as_pause(ledger: Path) -> None:
    os.mkfifo(ledger / "delivery.db")


@pytest.mark.parametrize(
    ("garble", "look"),
    [
        (garbled_identity, ledger_of),
        (missing_identity, ledger_of),
        (garbled_pause, delivery_of),
        (fifo_as_pause, delivery_of),
    ],
)
def test_a_directory_that_omen_does_not_serve_fails(
    garble: Callable[[Path], None], look: Callable[[Path], Seen], tmp_path: Path
) -> None:
    assert checked("ledger", partial(look, tmp_path)).outcome is Outcome.OK
    garble(tmp_path)
    check = checked("ledger", partial(look, tmp_path))
    assert check.outcome is Outcome.FAILED
    assert str(tmp_path) in check.seen


async def test_a_ledger_and_whether_it_is_paused_are_told_beside_its_server_and_without_it(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()):
        during = ledger_of(tmp_path), delivery_of(tmp_path)
    before = contents(tmp_path)
    after = ledger_of(tmp_path), delivery_of(tmp_path)
    assert contents(tmp_path) == before
    ledger_id = json.loads(before["ledger.json"])["ledger_id"]
    assert during == after == ((ledger_id, ()), ("not paused", ()))
    async with open_delivery_file(tmp_path / "delivery.db") as file:
        switch = await PauseSwitch.of(file)
        await switch.pause("maintenance", datetime(2026, 1, 29, 12, tzinfo=UTC))
        paused = delivery_of(tmp_path)
    assert paused == delivery_of(tmp_path) == ("paused since 2026-01-29 12:00 UTC", ())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("setting", ["omen_api_key_file", "omen_tls_ca_file"])
async def test_a_missing_key_or_authority_is_refused_without_any_omen_too(setting: str, tmp_path: Path) -> None:
    told: dict[str, Any] = {setting: tmp_path / "mistyped"}
    settings = RiskcastSettings(listen="127.0.0.1:0", database_url=f"sqlite:///{tmp_path}/riskcast.db", **told)
    checks = {check.name: check async for check in riskcast_server.cli.check.checks_of(settings)}
    assert [name for name, check in checks.items() if check.outcome is Outcome.FAILED] == ["OMEN"]
    with pytest.raises(SecurityRefused, match="mistyped"):
        async with riskcast(tmp_path, **told):
            pass


def command(server: str, *arguments: str) -> Result:
    return CliRunner().invoke(APPS[server], ["check", *arguments])


def test_a_peer_that_is_away_is_a_reason_and_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMEN_LEDGER_DIR", str(tmp_path / "ledger"))
    monkeypatch.setenv("OMEN_RISKCAST_TARGET", f"127.0.0.1:{closed_port()}")
    answer = command("OMEN", "-o", "json")
    checks = {row["check"]: row for row in json.loads(answer.stdout)}
    assert answer.exit_code == 1
    assert [name for name, row in checks.items() if row["outcome"] == "failed"] == ["RiskCast"]
    assert "UNAVAILABLE" in checks["RiskCast"]["seen"]
    assert "OMEN serves all the same" in checks["RiskCast"]["seen"]
    assert not (tmp_path / "ledger").exists()


def test_a_riskcast_without_omens_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISKCAST_DATABASE_URL", f"sqlite:///{tmp_path}/riskcast.db")
    answer = command("RISKCAST")
    assert answer.exit_code == 0
    assert answer.stdout.splitlines()[0].split() == ["check", "outcome", "seen"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("server", APPS)
def test_a_setting_that_is_unknown_is_the_reason_with_the_one_that_was_meant(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{server}_LISTNE", "hunter2")
    answer = command(server, "-o", "jsonl")
    assert answer.exit_code == 1
    [row] = [json.loads(line) for line in answer.stdout.splitlines()]
    assert row["seen"] == f"{server}_LISTNE: no such setting; did you mean {server}_LISTEN?"
