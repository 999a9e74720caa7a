"""`omen check` and `riskcast check`: a table of what would go wrong, and an exit code."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import omen_server.cli
import omen_server.cli.check
import riskcast_server.cli
import riskcast_server.cli.check
from contract.scopes import Scope
from omen_server.settings import OmenSettings
from riskcast_server.settings import RiskcastSettings
from serving.checks import Check, Outcome
from tests.omen_server.running import closed_port, omen
from tests.riskcast_server.running import riskcast
from tests.serving.access.keyring import Keyring

APPS = {"OMEN": omen_server.cli.app, "RISKCAST": riskcast_server.cli.app}


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
        of_omen, of_riskcast = await servers.of_omen("delivers"), await servers.of_riskcast("replays")
    assert list(of_omen) == ["listen", "ledger", "free space", "keys", "TLS", "RiskCast"]
    assert list(of_riskcast) == ["listen", "disk", "free space", "store", "keys", "TLS", "OMEN"]
    failed = [check for check in (*of_omen.values(), *of_riskcast.values()) if check.outcome is Outcome.FAILED]
    assert failed == []


async def test_a_key_that_is_good_for_something_else_fails_the_check_of_the_peer_alone(tmp_path: Path) -> None:
    async with both(tmp_path) as servers:
        of_omen, of_riskcast = await servers.of_omen("replays"), await servers.of_riskcast("delivers")
    for checks, peer in ((of_omen, "RiskCast"), (of_riskcast, "OMEN")):
        assert [check.name for check in checks.values() if check.outcome is Outcome.FAILED] == [peer]
        assert "SCOPE_MISSING" in checks[peer].seen


async def test_asking_whether_omen_may_deliver_stores_nothing(tmp_path: Path) -> None:
    async with riskcast(tmp_path, reconcile_interval=0) as store:
        settings = OmenSettings(listen="127.0.0.1:0", ledger_dir=tmp_path / "ledger", riskcast_target=store.target)
        checks = {check.name: check async for check in omen_server.cli.check.checks_of(settings)}
        assert checks["RiskCast"].outcome is Outcome.OK
        assert await store.count() == 0


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
