"""Each check sees what is wrong before a server meets it, and shows nothing secret."""

import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from pydantic_settings import SettingsConfigDict

from contract.scopes import Scope
from serving.access.editing import edit_keys
from serving.access.keys import ApiKey
from serving.checking.checks import (
    EXPIRES_SOON,
    Check,
    Outcome,
    Seen,
    check_directory,
    check_keys,
    check_listen,
    check_peer,
    check_settings,
    check_space,
    check_tls,
    check_traces,
    run_checks,
)
from serving.console import Output
from serving.security import OPEN, ClientSecurity, Security
from serving.settings import ServerSettings
from serving.tls import ServerTls
from tests.omen_server.running import closed_port
from tests.serving.access.keyring import Keyring
from tests.serving.authority import Trust, secured, trust
from tests.serving.probe import SERVICE, Probe

NOW = datetime.now(UTC)
OK, WARNING, FAILED = Outcome.OK, Outcome.WARNING, Outcome.FAILED


class Settings(ServerSettings):
    model_config = SettingsConfigDict(env_prefix="PROBE_", hide_input_in_errors=True)

    limit: int = 1
    database_url: str = ""


def told(check: Check, outcome: Outcome, *words: str) -> None:
    assert check.outcome is outcome, check
    assert [word for word in words if word not in check.seen] == [], check
    assert len(check.seen.splitlines()) == 1


def test_settings_are_named_and_their_values_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBE_DATABASE_URL", "hunter2")
    settings, check = check_settings(Settings)
    assert settings is not None
    told(check, OK, "PROBE_DATABASE_URL")
    assert "hunter2" not in check.seen


def test_every_setting_that_is_unknown_or_wrong_is_named_with_what_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBE_LIMT", "hunter2")
    monkeypatch.setenv("PROBE_XYZ", "hunter2")
    settings, check = check_settings(Settings)
    assert settings is None
    told(check, FAILED, "did you mean PROBE_LIMIT?", "PROBE_XYZ")
    monkeypatch.delenv("PROBE_LIMT")
    monkeypatch.delenv("PROBE_XYZ")
    monkeypatch.setenv("PROBE_LIMIT", "hunter2")
    told(check_settings(Settings)[1], FAILED, "PROBE_LIMIT")
    assert "hunter2" not in check.seen + check_settings(Settings)[1].seen


TLS = ServerTls(Path("cert"), Path("key"))


@pytest.mark.parametrize(
    ("listen", "security", "outcome", "words"),
    [
        ("127.0.0.1:1", OPEN, OK, "this machine alone"),
        ("unix:/s", OPEN, OK, "this machine alone"),
        ("0.0.0.0:1", OPEN, WARNING, "--insecure"),
        ("0.0.0.0:1", Security(keys_file=Path("keys")), WARNING, "plaintext"),
        ("0.0.0.0:1", Security(tls=TLS), WARNING, "--insecure"),
        ("0.0.0.0:1", Security(Path("keys"), TLS), OK, "other machines too"),
        ("nowhere", OPEN, FAILED, "nowhere"),
    ],
)
def test_what_others_reach_needs_keys_and_tls(listen: str, security: Security, outcome: Outcome, words: str) -> None:
    told(check_listen(listen, security), outcome, words)


@pytest.mark.parametrize("endpoint", ["http://a:hunter2@h:1", "ftp://hunter2", "hunter2"])
def test_a_collector_that_a_start_refuses_fails_without_its_address(endpoint: str) -> None:
    check = check_traces(endpoint, "omen")
    told(check, FAILED, "OMEN_TRACES_ENDPOINT")
    assert "hunter2" not in check.seen


def test_a_collector_fails_where_opentelemetry_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    told(check_traces("http://127.0.0.1:4318/hunter2", "omen"), OK, "OpenTelemetry is installed")
    monkeypatch.setitem(sys.modules, "serving.telemetry.spans", None)
    told(check_traces("http://127.0.0.1:4318/hunter2", "omen"), FAILED, "omen-riskcast[traces]")
    told(check_traces(None, "omen"), OK, "no collector")


def test_a_directory_is_synced_to_and_nothing_stays_in_it(tmp_path: Path) -> None:
    check = check_directory("disk", tmp_path)
    assert check.outcome is not FAILED
    assert str(tmp_path) in check.seen
    assert "synced in" in check.seen
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_judged_by_the_one_around_it_and_not_made(tmp_path: Path) -> None:
    assert "yet to be made" in check_directory("disk", tmp_path / "a" / "b").seen
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_memory_is_warned_of() -> None:
    told(check_directory("disk", Path("/dev/shm")), WARNING, "memory")


def test_a_file_or_what_takes_no_files_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told(check_directory("disk", tmp_path / "file"), FAILED, "file")
    told(check_directory("disk", Path("/proc/self")), FAILED)


def test_a_disk_that_does_not_sync_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    told(check_directory("disk", tmp_path), FAILED, "Input/output error")


def test_too_little_space_fails_and_little_is_warned_of(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    told(check_space("space", tmp_path / "later", 1), OK)
    told(check_space("space", tmp_path, free * 3 // 4), WARNING, "full")
    told(check_space("space", tmp_path, free * 2), FAILED, "nothing is taken")


def a_key(key_id: str, expires_at: datetime | None = None) -> ApiKey:
    return ApiKey(id=key_id, sha256="0" * 64, scopes=frozenset(), expires_at=expires_at)


@pytest.mark.parametrize(
    ("keys", "outcome", "words"),
    [
        ([a_key("a"), a_key("b", NOW + EXPIRES_SOON + timedelta(minutes=1))], OK, ["2 in"]),
        ([a_key("a"), a_key("b", NOW + EXPIRES_SOON)], WARNING, ["expiring within 14 days: b"]),
        ([a_key("a"), a_key("b", NOW)], WARNING, ["expired: b"]),
        ([a_key("b", NOW)], WARNING, ["nobody may call", "expired: b"]),
        ([], WARNING, ["nobody may call"]),
    ],
)
def test_keys_that_end_soon_are_warned_of(
    tmp_path: Path, keys: list[ApiKey], outcome: Outcome, words: list[str]
) -> None:
    edit_keys(tmp_path / "keys", lambda _: keys)
    told(check_keys(tmp_path / "keys", NOW), outcome, *words)


def test_a_file_of_keys_that_others_may_write_is_warned_of(tmp_path: Path) -> None:
    edit_keys(tmp_path / "keys", lambda _: [a_key("a")])
    (tmp_path / "keys").chmod(0o620)
    told(check_keys(tmp_path / "keys", NOW), WARNING, "others may write")


def test_keys_that_cannot_be_read_fail(tmp_path: Path) -> None:
    told(check_keys(tmp_path / "nothing", NOW), FAILED, "nothing: No such file")
    (tmp_path / "keys").write_text("hunter2", "utf-8")
    check = check_keys(tmp_path / "keys", NOW)
    told(check, FAILED, "no file of keys")
    assert "hunter2" not in check.seen
    told(check_keys(None, NOW), OK, "may call")


@pytest.fixture
def trusted(tmp_path: Path) -> Trust:
    return trust(tmp_path)


def test_certificates_are_good_for_as_long_as_they_are(trusted: Trust) -> None:
    pair = trusted.issue("server", days=100)
    tls = ServerTls(pair.cert_file, pair.key_file, trusted.ca_file)
    now = datetime.now(UTC)
    told(check_tls(tls, now), OK, "clients show certificates")
    told(check_tls(tls, now + timedelta(days=90)), WARNING, f"{pair.cert_file} expires within 14 days")
    told(check_tls(tls, now + timedelta(days=101)), FAILED, f"{pair.cert_file} is valid from")
    told(check_tls(tls, now - timedelta(days=1)), FAILED, f"{pair.cert_file} is valid from")
    told(check_tls(None, now), OK, "plaintext")


def test_an_authority_that_has_expired_fails(trusted: Trust) -> None:
    pair = trusted.issue("server", days=5000)
    tls = ServerTls(pair.cert_file, pair.key_file, trusted.ca_file)
    told(check_tls(tls, datetime.now(UTC) + timedelta(days=4000)), FAILED, f"{trusted.ca_file} is valid from")


def test_files_that_are_no_pair_fail(trusted: Trust) -> None:
    one, other, now = trusted.issue("one"), trusted.issue("other"), datetime.now(UTC)
    told(check_tls(ServerTls(one.cert_file, other.key_file), now), FAILED, "is not the key of")
    told(check_tls(ServerTls(one.key_file, one.key_file), now), FAILED, "no PEM certificate")
    told(check_tls(ServerTls(one.cert_file, one.cert_file), now), FAILED, "no PEM private key")
    told(check_tls(ServerTls(one.cert_file, trusted.directory / "gone"), now), FAILED, "gone: No such file")


async def ask(channel: grpc.aio.Channel) -> Seen:
    call: Any = channel.unary_unary(f"/{SERVICE.full_name}/UnaryUnary")
    await call(b"", timeout=10)
    return "it answers", ()


async def ask_for_more(channel: grpc.aio.Channel) -> Seen:
    return "it answers", ["not everything"]


async def test_a_peer_is_asked_with_our_key_over_our_certificates(trusted: Trust, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    entries = write_both(keys)
    security = Security(keys, trusted.server())
    async with secured(Probe(), security) as running:
        good = ClientSecurity(entries["good"], trusted.ca_file)
        told(await check_peer("peer", running.target, good, ask), FAILED, "is not ready")
        running.set_ready()
        told(await check_peer("peer", running.target, good, ask), OK, running.target, "it answers")
        told(await check_peer("peer", running.target, good, ask_for_more), WARNING, "it answers; not everything")
        narrow = ClientSecurity(entries["narrow"], trusted.ca_file)
        told(await check_peer("peer", running.target, narrow, ask), FAILED, "SCOPE_MISSING")
        told(await check_peer("peer", running.target, ClientSecurity(None, trusted.ca_file), ask), FAILED, "BAD_CRED")
        nothing = ClientSecurity(tmp_path / "gone", trusted.ca_file)
        told(await check_peer("peer", running.target, nothing, ask), FAILED, "gone: No such file")


def write_both(keys: Path) -> dict[str, Path]:
    """Files with a key that may call the probe, and with one that may not."""
    ring = Keyring(keys).add("good", Scope.INGEST).add("narrow")
    files = {key_id: keys.with_name(key_id) for key_id in ring.texts}
    for key_id, file in files.items():
        file.write_text(f"{ring.texts[key_id]}\n", "utf-8")
    return files


async def test_a_peer_that_is_not_there_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["serving.channels"], "CONNECT_WITHIN_S", 0.1)
    target = f"127.0.0.1:{closed_port()}"
    told(await check_peer("peer", target, ClientSecurity(), ask), FAILED, target, "UNAVAILABLE")


class Checked(ServerSettings):
    """Of a server that is told nothing."""

    model_config = SettingsConfigDict(env_prefix="CHECKED_")


def test_all_are_printed_and_one_that_failed_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    async def fine(_settings: Checked) -> AsyncIterator[Check]:
        yield Check("a", OK, "fine")
        yield Check("b", WARNING, "soon")

    async def failing(settings: Checked) -> AsyncIterator[Check]:
        async for check in fine(settings):
            yield check
        yield Check("c", FAILED, "why")

    run_checks(Checked, fine, Output.JSONL)
    assert [json.loads(line)["check"] for line in capsys.readouterr().out.splitlines()] == ["settings", "a", "b"]
    with pytest.raises(typer.Exit) as ended:
        run_checks(Checked, failing, Output.JSONL)
    assert ended.value.exit_code == 1
    assert '{"check": "c", "outcome": "failed", "seen": "why"}' in capsys.readouterr().out
