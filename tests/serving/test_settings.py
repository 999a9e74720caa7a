"""Settings from the environment: an unknown name is refused, a wrong value is named and never shown."""

from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.settings import SettingsRefused, load


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="PROBE_", hide_input_in_errors=True)

    listen: str = "here"
    limit: int = 1
    directory: Path = Path("somewhere")
    api_key: SecretStr = SecretStr("")


def refused(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsRefused) as caught:
        load(Settings)
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
