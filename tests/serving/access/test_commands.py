"""`keys create | list | revoke`: the key is seen once, the file is whole and private, and no entry is ever lost."""

import json
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import omen_server.cli
import riskcast_server.cli
from contract.scopes import Scope
from serving.access.editing import edit_keys
from serving.access.gate import Gate
from serving.access.keys import KEYS_MAX, ApiKey, read_keys, sha256_of

APPS = {"OMEN": omen_server.cli.app, "RISKCAST": riskcast_server.cli.app}
METHOD = "/omen.v1.LedgerService/Replay"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secrets" / "keys.json"


def keys(file: Path, *arguments: str, server: str = "OMEN") -> Result:
    return CliRunner().invoke(APPS[server], ["keys", arguments[0], "--file", str(file), *arguments[1:]])


def created(file: Path, *arguments: str) -> str:
    """The key that is printed."""
    answer = keys(file, "create", *arguments)
    assert answer.exit_code == 0, answer.output
    return answer.stdout.removesuffix("\n")


def listed(file: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in json.loads(keys(file, "list", "-o", "json").stdout)}


def modes(file: Path) -> tuple[int, int]:
    return stat.S_IMODE(file.parent.stat().st_mode), stat.S_IMODE(file.stat().st_mode)


@pytest.mark.parametrize("server", APPS)
def test_the_key_is_printed_alone_and_lets_its_client_in(
    server: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{server}_API_KEYS_FILE", str(file))
    answer = CliRunner().invoke(APPS[server], ["keys", "create", "auditor", "--scope", "ledger.read"])
    [text] = answer.stdout.splitlines()
    gate = Gate(lambda: read_keys(file), {METHOD: Scope.LEDGER_READ})
    gate.allow(gate.identify(METHOD, [("x-api-key", text)]), METHOD)
    assert text not in file.read_text("utf-8")
    assert CliRunner().invoke(APPS[server], ["keys", "list"]).stdout.splitlines()[1].split()[:3] == [
        "auditor",
        "valid",
        "ledger.read",
    ]


def test_a_key_says_what_it_was_told(file: Path) -> None:
    created(file, "a", "--scope", "ingest", "--scope", "stats.read", "--expires", "2099-01-01T01:00:00+01:00")
    created(file, "b", "--scope", "ingest", "--expires", "90d", "--rate", "2.5")
    found = listed(file)
    assert found["a"] == {
        "id": "a",
        "state": "valid",
        "scopes": ["ingest", "stats.read"],
        "expires_at": "2099-01-01T00:00:00+00:00",
        "rate": None,
    }
    assert found["b"]["rate"] == 2.5
    left = datetime.fromisoformat(found["b"]["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=89, hours=23) < left <= timedelta(days=90)


def test_no_list_shows_a_key_or_its_hash(file: Path) -> None:
    text = created(file, "a", "--scope", "ingest")
    for output in ("table", "json", "jsonl"):
        shown = keys(file, "list", "-o", output).output
        assert "ingest" in shown
        assert text.partition(".")[2] not in shown
        assert sha256_of(text) not in shown


def test_a_key_that_has_expired_is_listed_as_such(file: Path) -> None:
    past = ApiKey(id="past", sha256="0" * 64, scopes=frozenset(), expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    edit_keys(file, lambda _: [past])
    assert listed(file)["past"]["state"] == "expired"


REFUSED = {
    "an unknown scope": (["a", "--scope", "ledger.write"], "ledger.read"),
    "no scope": (["a"], "--scope"),
    "a time without a zone": (["a", "--scope", "ingest", "--expires", "2099-01-01T00:00:00"], "no time zone"),
    "a time that is none": (["a", "--scope", "ingest", "--expires", "soon"], "neither"),
    "a time that is past": (["a", "--scope", "ingest", "--expires", "2020-01-01T00:00:00Z"], "past"),
    "no days": (["a", "--scope", "ingest", "--expires", "0d"], "past"),
    "days beyond the calendar": (["a", "--scope", "ingest", "--expires", "99999d"], "days away"),
    "a rate of nothing": (["a", "--scope", "ingest", "--rate", "0"], "0.001"),
    "a rate that is no number": (["a", "--scope", "ingest", "--rate", "nan"], "rate"),
    "an id with a dot": (["a.b", "--scope", "ingest"], "an id is"),
    "an id in capitals": (["Omen", "--scope", "ingest"], "an id is"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_makes_no_key_is_refused_and_changes_nothing(what: str, file: Path) -> None:
    arguments, said = REFUSED[what]
    answer = keys(file, "create", *arguments)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert said in " ".join(answer.stderr.replace("│", " ").split())
    assert not file.exists()


def test_an_id_that_is_there_is_refused_and_its_key_stays(file: Path) -> None:
    text = created(file, "a", "--scope", "ingest")
    answer = keys(file, "create", "a", "--scope", "reconcile")
    assert (answer.exit_code, answer.stdout) == (2, "")
    [key] = read_keys(file)
    assert (key.sha256, set(key.scopes)) == (sha256_of(text), {Scope.INGEST})


def test_a_revoked_key_is_gone_and_the_others_stay(file: Path) -> None:
    for key_id in ("a", "b"):
        created(file, key_id, "--scope", "ingest")
    answer = keys(file, "revoke", "a")
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert listed(file).keys() == {"b"}
    assert keys(file, "revoke", "b").exit_code == 0
    assert read_keys(file) == ()


def test_a_key_that_is_not_there_is_not_found(file: Path) -> None:
    assert keys(file, "revoke", "a").exit_code == 3
    assert not file.parent.exists()
    assert keys(file, "list").exit_code == 3
    created(file, "b", "--scope", "ingest")
    assert keys(file, "revoke", "a").exit_code == 3
    assert listed(file).keys() == {"b"}


def test_more_keys_than_a_server_reads_are_refused(file: Path) -> None:
    edit_keys(file, lambda _: [ApiKey(id=f"a{n}", sha256="0" * 64, scopes=frozenset()) for n in range(KEYS_MAX)])
    answer = keys(file, "create", "b", "--scope", "ingest")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert len(read_keys(file)) == KEYS_MAX


@pytest.mark.parametrize("command", [["create", "b", "--scope", "ingest"], ["list"], ["revoke", "a"]])
def test_a_file_that_is_none_is_left_as_it_is_and_its_contents_are_not_told(file: Path, command: list[str]) -> None:
    file.parent.mkdir()
    file.write_text("hunter2", "utf-8")
    answer = keys(file, *command)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert len(answer.stderr.splitlines()) == 1
    assert "hunter2" not in answer.stderr
    assert file.read_text("utf-8") == "hunter2"


def test_without_a_file_a_command_says_which_setting_names_it() -> None:
    answer = CliRunner().invoke(APPS["RISKCAST"], ["keys", "list"])
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert "RISKCAST_API_KEYS_FILE" in answer.stderr


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_only_its_owner_reads_a_new_file_whatever_the_umask(file: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        created(file, "a", "--scope", "ingest")
    finally:
        os.umask(before)
    assert modes(file) == (0o700, 0o600)
    assert {stat.S_IMODE(each.stat().st_mode) for each in file.parent.iterdir()} == {0o600}


@pytest.mark.parametrize(("before", "after"), [(0o600, 0o600), (0o640, 0o640), (0o666, 0o640), (0o400, 0o600)])
def test_a_group_that_could_read_the_file_still_can_and_others_no_more(file: Path, before: int, after: int) -> None:
    created(file, "a", "--scope", "ingest")
    file.chmod(before)
    created(file, "b", "--scope", "ingest")
    assert modes(file)[1] == after


def test_a_link_goes_on_pointing_to_the_file(file: Path, tmp_path: Path) -> None:
    created(file, "a", "--scope", "ingest")
    link = tmp_path / "link"
    link.symlink_to(file)
    created(link, "b", "--scope", "ingest")
    assert link.is_symlink()
    assert listed(file).keys() == {"a", "b"}


def test_commands_at_once_lose_no_key(file: Path) -> None:
    def add(number: int) -> None:
        key = ApiKey(id=f"a{number}", sha256="0" * 64, scopes=frozenset())
        edit_keys(file, lambda before: [*before, key])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert {key.id for key in read_keys(file)} == {f"a{number}" for number in range(40)}


def test_the_key_is_durable_before_it_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    created(file, "a", "--scope", "ingest")
    done: list[str] = []

    def noting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            done.append(name)
            return real(*arguments, **named)

        return call

    def synced(descriptor: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("sync of the folder" if is_directory else "sync of the file")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", noting("rename", Path.replace))
    created(file, "b", "--scope", "ingest")
    assert done == ["sync of the file", "rename", "sync of the folder"]


def test_a_write_that_fails_leaves_the_former_file_and_nothing_beside_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created(file, "a", "--scope", "ingest")
    before = sorted(file.parent.iterdir())

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    answer = keys(file, "create", "b", "--scope", "ingest")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert "No space left" in answer.stderr
    assert sorted(file.parent.iterdir()) == before
    assert listed(file).keys() == {"a"}
