"""Settings from the environment: an unknown name is refused, a wrong value is named and never shown."""

from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.security import ClientSecurity, Security
from serving.settings import ServerSettings, SettingsRefused, load
from serving.tls import ServerTls


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="PROBE_", hide_input_in_errors=True)

    listen: str = "here"
    limit: int = 1
    directory: Path = Path("somewhere")
    api_key: SecretStr = SecretStr("")


class Common(ServerSettings):
    model_config = SettingsConfigDict(env_prefix="PROBE_", hide_input_in_errors=True)


def refused(monkeypatch: pytest.MonkeyPatch, kind: type[BaseSettings] = Settings, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsRefused) as caught:
        load(kind)
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_defaults_hold_where_nothing_is_set() -> None:
    assert load(Settings) == Settings()


def test_names_are_read_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBE_LIMIT", "7")
    monkeypatch.setenv("probe_listen", "there")
    assert (load(Settings).limit, load(Settings).listen) == (7, "there")


def test_an_unknown_name_is_refused_with_the_one_that_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused(monkeypatch, PROBE_LISTNE="hunter2")
    assert said == "PROBE_LISTNE: no such setting; did you mean PROBE_LISTEN?"


def test_an_unknown_name_that_resembles_nothing_is_refused_without_a_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(monkeypatch, PROBE_XYZ="hunter2") == "PROBE_XYZ: no such setting"


def test_every_unknown_name_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused(monkeypatch, PROBE_B="1", PROBE_A="1")
    assert said.splitlines() == ["PROBE_A: no such setting", "PROBE_B: no such setting"]


def test_names_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBED_LISTEN", "x")
    monkeypatch.setenv("OTHER_PROBE_LISTEN", "x")
    assert load(Settings) == Settings()


def test_a_wrong_value_is_named_by_its_setting_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused(monkeypatch, PROBE_LIMIT="hunter2")
    assert said.startswith("PROBE_LIMIT: ")
    assert "hunter2" not in said


def test_a_secret_never_reaches_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused(monkeypatch, PROBE_API_KEY="hunter2", PROBE_LIMIT="hunter3", PROBE_NOBODY="hunter4")
    assert "hunter" not in said


@pytest.mark.parametrize(
    ("said", "needed"),
    [
        ("TLS_CERT_FILE", "TLS_KEY_FILE"),
        ("TLS_KEY_FILE", "TLS_CERT_FILE"),
        ("TLS_CLIENT_CA_FILE", "TLS_CERT_FILE"),
        ("CLIENT_TLS_KEY_FILE", "CLIENT_TLS_CERT_FILE"),
    ],
)
def test_half_of_what_belongs_together_is_refused_with_the_other_half(
    monkeypatch: pytest.MonkeyPatch, said: str, needed: str
) -> None:
    assert refused(monkeypatch, Common, **{f"PROBE_{said}": "hunter2"}) == f"PROBE_{said}: needs PROBE_{needed}"


def test_a_certificate_without_whom_to_show_it_to_is_refused_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be sent to nobody: without an authority to trust, commands speak plaintext."""
    assert refused(monkeypatch, Common, PROBE_CLIENT_TLS_CERT_FILE="hunter2").splitlines() == [
        "PROBE_CLIENT_TLS_CERT_FILE: needs PROBE_CLIENT_TLS_KEY_FILE",
        "PROBE_CLIENT_TLS_CERT_FILE: needs PROBE_CLIENT_TLS_CA_FILE",
    ]


@pytest.mark.parametrize("name", ["HEALTH_LISTEN", "METRICS_LISTEN"])
@pytest.mark.parametrize("value", ["", "9090", "hunter2", ":9090", "127.0.0.1:", "127.0.0.1:65536", "unix:/tmp/s"])
def test_what_is_no_host_and_port_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    assert refused(monkeypatch, Common, **{f"PROBE_{name}": value}) == f"PROBE_{name}: expected host:port"


def test_what_is_said_in_whole_secures_the_server_and_its_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CLIENT_CA_FILE", "API_KEYS_FILE"]
    names += [f"CLIENT_{name}" for name in ("API_KEY_FILE", "TLS_CA_FILE", "TLS_CERT_FILE", "TLS_KEY_FILE")]
    for name in names:
        monkeypatch.setenv(f"PROBE_{name}", name.lower())
    monkeypatch.setenv("PROBE_HEALTH_LISTEN", "[::]:8086")
    monkeypatch.setenv("PROBE_REFLECTION", "false")
    said = load(Common)
    tls = ServerTls(Path("tls_cert_file"), Path("tls_key_file"), Path("tls_client_ca_file"))
    assert said.security() == Security(Path("api_keys_file"), tls, "[::]:8086", has_reflection=False)
    shown = (Path(f"client_{name}") for name in ("api_key_file", "tls_ca_file", "tls_cert_file", "tls_key_file"))
    assert said.client_security() == ClientSecurity(*shown)


def test_where_nothing_is_said_the_server_is_open_and_commands_speak_plaintext() -> None:
    assert (load(Common).security(), load(Common).client_security()) == (Security(), ClientSecurity())


def test_an_empty_name_of_a_file_never_leaves_the_server_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a variable of a deployment was forgotten: it is a file that cannot be read, and the start is refused."""
    monkeypatch.setenv("PROBE_API_KEYS_FILE", "")
    assert load(Common).security().keys_file is not None


def test_an_endpoint_that_holds_a_password_is_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBE_TRACES_ENDPOINT", "http://user:hunter2@collector:4318")
    assert "hunter2" not in f"{load(Common)!r} {load(Common)}"
