"""Each secret of a run is a canary, and is searched in all that servers and commands say, answer and write."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor

from omen_server.settings import OmenSettings
from riskcast_server.settings import RiskcastSettings
from serving.console import Exit
from serving.settings import SettingsRefused, load
from tests.hostile.http2 import body, call_headers, connected, header, message, opening
from tests.hostile.messages import fields_of, set_value
from tests.hostile.recorded import Recorder
from tests.hostile.requests import EMIT, INGEST, Known, event, good_requests, whole_event
from tests.hostile.secrets_of_a_run import CANARY, Secrets
from tests.hostile.servers import METHODS, package_of
from tests.omen_server.running import closed_port
from tests.riskcast_server.events import position
from tests.serving.authority import Trust, trust

CALL_S = 10.0
# What the contract tells back to whoever sent it, so that they see which one was wrong.
TOLD_BACK = {"schema_version", "signal_id", "deterministic_trace_id"}
DOORS = {"omen": EMIT, "riskcast": INGEST}
COUNTS = {"omen": ("delivery", "status"), "riskcast": ("signals", "count")}


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    (tmp_path / "secrets").mkdir()
    return Secrets(tmp_path / "secrets")


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Whoever it records may tell no canary, and write none."""
    recording = Recorder(tmp_path / "made")
    recording.directory.mkdir()
    yield recording
    assert recording.said
    assert recording.tellers_of(CANARY) == []
    written = [path for path in recording.directory.rglob("*") if path.is_file()]
    assert [path for path in written if CANARY.encode() in path.read_bytes()] == []


class Caller:
    """Calls both servers, and hands all that they answer to a recorder."""

    def __init__(self, recorder: Recorder, ports: dict[str, int]) -> None:
        self._recorder = recorder
        self._ports = ports
        self._channels = {name: grpc.insecure_channel(f"127.0.0.1:{port}") for name, port in ports.items()}

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()

    def call(self, path: str, encoded: bytes, *metadata: tuple[str, str | bytes]) -> Any:
        """How it ends; a stream of requests has this one alone."""
        method = METHODS[path]
        kind = ("stream_" if method.client_streaming else "unary_") + ("stream" if method.server_streaming else "unary")
        make: Any = getattr(self._channels[package_of(path).partition(".")[0]], kind)
        request: Any = iter([encoded]) if method.client_streaming else encoded
        answer: Any = grpc.StatusCode.OK
        try:
            answered = make(path)(request, metadata=metadata, timeout=CALL_S, wait_for_ready=True)
            self._recorder.keep(path, list(answered) if method.server_streaming else answered)
        except grpc.RpcError as error:
            failed: Any = error
            answer = failed.code()
            self._recorder.keep(path, (failed.details(), failed.trailing_metadata(), repr(failed), failed))
        return answer

    def call_raw(self, server: str, *sent: bytes) -> None:
        """A call with header values that no client library lets through."""
        with connected(self._ports[server]) as client:
            block = call_headers(DOORS[server]) + b"".join(header("x-api-key", value) for value in sent)
            client.send(opening(1, block) + body(1, message(b"")))
            with suppress(ConnectionError):
                answered = client.until(lambda each: each.stream == 1)
                self._recorder.keep(f"{server} to raw headers", answered.payload)


def test_a_full_run_tells_no_secret(secrets: Secrets, recorder: Recorder) -> None:
    ports = {name: closed_port() for name in ("omen", "riskcast")}
    pages = {name: closed_port() for name in ("omen", "riskcast")}
    omen, riskcast = settings_of_both(secrets, recorder, ports, pages)
    key = ("x-api-key", secrets.key("client"))
    with (
        closing(Caller(recorder, ports)) as caller,
        recorder.server("omen_server", ports["omen"], **omen) as delivering,
    ):
        with recorder.server("riskcast_server", ports["riskcast"], **riskcast) as dying:
            assert caller.call(EMIT, emit_request(1), key) is grpc.StatusCode.OK
            assert caller.call(INGEST, ingest_request(2), key) is grpc.StatusCode.OK
            refused_keys(caller, secrets)
            refused_fields(caller, key)
            commands(recorder, secrets, omen, riskcast)
            a_new_key(recorder, omen["OMEN_API_KEYS_FILE"])
            recorder.keep("metrics", [page(port) for port in pages.values()])
            dying.kill()
            dying.wait()
        assert caller.call(EMIT, emit_request(3), key) is grpc.StatusCode.OK  # into the ledger alone
        with recorder.server("riskcast_server", ports["riskcast"], **riskcast) as storing:
            spoil(Path(omen["OMEN_API_KEYS_FILE"]), Path(riskcast["RISKCAST_API_KEYS_FILE"]))
            for server in (delivering, storing):
                recorder.until_told(server, "file_not_reloaded")
            assert caller.call(EMIT, emit_request(4), key) is grpc.StatusCode.OK
            recorder.keep("metrics", [page(port) for port in pages.values()])


def test_a_run_over_tls_tells_no_private_key(secrets: Secrets, recorder: Recorder) -> None:
    ours, strangers = trust(secrets.directory, "ours"), trust(secrets.directory, "strangers")
    ports = {name: closed_port() for name in ("omen", "riskcast")}
    omen, riskcast = settings_of_both(secrets, recorder, ports, {name: closed_port() for name in ports})
    omen |= tls_settings(ours, "OMEN") | {"OMEN_RISKCAST_TLS_CA_FILE": str(ours.ca_file)}
    riskcast |= tls_settings(ours, "RISKCAST") | {"RISKCAST_OMEN_TLS_CA_FILE": str(ours.ca_file)}
    with (
        recorder.server("riskcast_server", ports["riskcast"], **riskcast),
        recorder.server("omen_server", ports["omen"], **omen),
    ):
        for name, client, code in (("omen", ours, Exit.OK), ("riskcast", strangers, Exit.UNAVAILABLE)):
            settings = client_settings(secrets, client, name, ports[name])
            assert recorder.command(f"{name}_server", *COUNTS[name], **settings) == code
            with connected(ports[name]) as plaintext:
                plaintext.until_closed()
        for half_written in (secrets.directory / "ours").glob("*"):
            half_written.write_text(half_written.read_text("ascii")[:-40], "ascii")
        with connected(ports["omen"]) as another:
            another.until_closed()
    files = [path for path in secrets.directory.rglob("*") if path.is_file()]
    keys = [line for path in files for line in private_lines(path.read_text("utf-8"))]
    assert keys
    assert [recorder.tellers_of(line) for line in keys] == [[]] * len(keys)


def tls_settings(ours: Trust, prefix: str) -> dict[str, str]:
    pair = ours.issue(prefix.lower())
    files = {"CERT": pair.cert_file, "KEY": pair.key_file, "CLIENT_CA": ours.ca_file}
    return {f"{prefix}_TLS_{name}_FILE": str(path) for name, path in files.items()}


def client_settings(secrets: Secrets, shown: Trust, server: str, port: int) -> dict[str, str]:
    pair, prefix = shown.issue("client"), server.upper()
    files = {"TLS_CA": shown.ca_file, "TLS_CERT": pair.cert_file, "TLS_KEY": pair.key_file}
    found = {f"{prefix}_CLIENT_{name}_FILE": str(path) for name, path in files.items()}
    key = secrets.key_file("client")
    return found | {f"{prefix}_LISTEN": f"127.0.0.1:{port}", f"{prefix}_CLIENT_API_KEY_FILE": key}


def private_lines(pem: str) -> list[str]:
    """What a private key is made of, without the first line, which all keys of a kind begin with."""
    inside = re.findall(r"BEGIN [A-Z ]*PRIVATE KEY-----\n([^-]*)", pem)
    return [line for key in inside for line in key.splitlines()[1:] if len(line) > 20]


def settings_of_both(
    secrets: Secrets, recorder: Recorder, ports: dict[str, int], pages: dict[str, int]
) -> tuple[dict[str, str], dict[str, str]]:
    """Each with the keys of those who call it and one of its own; what they make is in the recorder's directory."""
    omen = {
        "OMEN_LEDGER_DIR": str(recorder.directory / "ledger"),
        "OMEN_RISKCAST_TARGET": f"127.0.0.1:{ports['riskcast']}",
        "OMEN_API_KEYS_FILE": secrets.keys_file("omen", "client", "riskcast"),
        "OMEN_RISKCAST_API_KEY_FILE": secrets.key_file("omen"),
        "OMEN_METRICS_LISTEN": f"127.0.0.1:{pages['omen']}",
    }
    riskcast = {
        "RISKCAST_DATABASE_URL": f"sqlite:///{recorder.directory / 'riskcast.db'}",
        "RISKCAST_OMEN_TARGETS": f"127.0.0.1:{ports['omen']}",
        "RISKCAST_API_KEYS_FILE": secrets.keys_file("riskcast", "client", "omen"),
        "RISKCAST_OMEN_API_KEY_FILE": secrets.key_file("riskcast"),
        "RISKCAST_METRICS_LISTEN": f"127.0.0.1:{pages['riskcast']}",
    }
    return omen, riskcast


def emit_request(number: int) -> bytes:
    return b"\x0a" + with_length(event(number).SerializeToString())


def ingest_request(number: int) -> bytes:
    return b"\x0a" + with_length(whole_event(number).SerializeToString())


def with_length(encoded: bytes) -> bytes:
    """As the first field of either request holds it."""
    return bytes([len(encoded) & 127 | 128, len(encoded) >> 7]) + encoded


def refused_keys(caller: Caller, secrets: Secrets) -> None:
    """Keys that are wrong in every way that a client can send them."""
    wrong = [CANARY, f"client.{CANARY}", f"{secrets.key('client')}x", secrets.key("stranger"), f"{CANARY} " * 400]
    for path, request in ((EMIT, emit_request(8)), (INGEST, ingest_request(8))):
        for key in wrong:
            assert caller.call(path, request, ("x-api-key", key)) is grpc.StatusCode.UNAUTHENTICATED
        twice = [("x-api-key", secrets.key("client"))] * 2
        assert caller.call(path, request, *twice) is grpc.StatusCode.UNAUTHENTICATED
        binary = ("x-api-key-bin", CANARY.encode())
        assert caller.call(path, request, binary) is grpc.StatusCode.UNAUTHENTICATED
    for server in DOORS:
        for value in (CANARY.encode() + b"\xff\xfe", CANARY.encode() + b"\0", "é".encode() + CANARY.encode()):
            caller.call_raw(server, value)
            caller.call_raw(server, value, value)


def refused_fields(caller: Caller, key: tuple[str, str]) -> None:
    """A text that no field may hold, in each field of each request; and bytes that are no message."""
    good = good_requests(Known("OMEN-000000000000", position(1)))
    for path, method in METHODS.items():
        caller.call(path, b"\x0a\x20" + CANARY.encode() + b"\xff", key)
        for place in fields_of(method.input_type):
            field = place[-1]
            if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and field.name not in TOLD_BACK:
                is_bytes = field.type == FieldDescriptor.TYPE_BYTES
                bad: Any = f"{CANARY}\0e\u0301".encode() * 5000 if is_bytes else f"{CANARY}\0e\u0301"
                [request, *_] = good[path]()
                set_value(request, place, [bad] if field.is_repeated else bad)
                caller.call(path, request.SerializeToString(), key)


def commands(recorder: Recorder, secrets: Secrets, omen: dict[str, str], riskcast: dict[str, str]) -> None:
    """With a key, and with one that is refused."""
    listens = {f"{name}_LISTEN": at for name, at in targets(omen, riskcast).items()}
    client, stranger = secrets.key_file("client"), secrets.key_file("stranger")
    for key in (client, stranger):
        recorder.command(
            "omen_server", "delivery", "status", OMEN_CLIENT_API_KEY_FILE=key, OMEN_LISTEN=listens["OMEN_LISTEN"]
        )
    recorder.command(
        "riskcast_server",
        "reconcile",
        "--include-open",
        RISKCAST_CLIENT_API_KEY_FILE=client,
        RISKCAST_LISTEN=listens["RISKCAST_LISTEN"],
    )


def a_new_key(recorder: Recorder, file: str) -> None:
    """It is printed once, and by nobody else."""
    assert recorder.command("omen_server", "keys", "create", "new", "--scope", "ingest", "--file", file) == 0
    printed, said = list(recorder.said.items())[-1]
    [key] = re.findall(r"new\.([\w-]{40,})", said)
    assert recorder.command("omen_server", "keys", "list", "--file", file) == 0
    assert recorder.tellers_of(key) == [printed]
    assert key not in Path(file).read_text("utf-8")


def targets(omen: dict[str, str], riskcast: dict[str, str]) -> dict[str, str]:
    """Where each listens, as the other is told."""
    return {"OMEN": riskcast["RISKCAST_OMEN_TARGETS"], "RISKCAST": omen["OMEN_RISKCAST_TARGET"]}


def page(port: int) -> str:
    """All that is told there over HTTP; nothing where nobody listens."""
    with socket.socket() as client:
        client.settimeout(CALL_S)
        if client.connect_ex(("127.0.0.1", port)):
            return ""
        client.sendall(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65_536), b"")).decode()


def spoil(*files: Path) -> None:
    """Whoever writes the keys themselves into a file of keys must not find them in the log."""
    for file in files:
        file.write_text(json.dumps({"keys": [{"id": CANARY, "key": CANARY, CANARY: 1, "scopes": [CANARY]}]}), "utf-8")


@pytest.mark.parametrize(
    ("module", "name", "content"),
    [
        ("riskcast_server", "RISKCAST_DATABASE_URL", ""),
        ("omen_server", "OMEN_API_KEYS_FILE", json.dumps({"keys": [{"id": CANARY, CANARY: CANARY}]})),
        ("omen_server", "OMEN_TLS_KEY_FILE", f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n"),
    ],
    ids=["database", "keys", "certificate"],
)
def test_a_server_that_refuses_to_start_tells_no_secret(
    secrets: Secrets, recorder: Recorder, module: str, name: str, content: str
) -> None:
    value = secrets.file("broken", content) if content else f"postgresql://omen:{CANARY}@127.0.0.1:{closed_port()}/db"
    settings = {name: value}
    if "TLS" in name:
        settings["OMEN_TLS_CERT_FILE"] = value
    made = {"OMEN_LEDGER_DIR": str(recorder.directory / "ledger")} if module == "omen_server" else {}
    assert recorder.command(module, "serve", **settings, **made) != 0


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (RiskcastSettings, {"RISKCAST_DATABASE_URL": f"postgresql://omen:{CANARY}@host/db"}),
        (RiskcastSettings, {"RISKCAST_DATABASE_STATEMENTS_CACHED": CANARY, "RISKCAST_RECONCILE_INTERVAL": CANARY}),
        (OmenSettings, {"OMEN_REFLECTION": CANARY, "OMEN_RISKCAST_API_KEYFILE": CANARY, "OMEN_KEY": CANARY}),
    ],
    ids=["a password", "wrong values", "unknown names"],
)
def test_settings_show_no_secret_whatever_is_wrong_with_them(
    kind: Any, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    try:
        read = load(kind)
        shown = f"{read!r} {read} {read.security()!r} {read.client_security()!r}"
    except SettingsRefused as refused:
        shown = f"{refused!r} {refused} {refused.__cause__!r}"
    assert CANARY not in shown
