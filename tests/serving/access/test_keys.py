"""What a file of keys may say, and what is told of one that says something else."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from contract.scopes import Scope
from serving.access.keys import FILE_BYTES_MAX, KEYS_MAX, new_key, read_keys, sha256_of
from serving.files import Reloaded

SECRET = "omen-1.hunter2hunter2hunter2"
GOOD = {"id": "omen-1", "sha256": sha256_of(SECRET), "scopes": ["ingest"]}


def written(path: Path, *keys: Any, **rest: Any) -> Path:
    path.write_text(json.dumps({"keys": keys, **rest}), "utf-8")
    return path


def refused(path: Path) -> str:
    with pytest.raises(ValueError, match="is no file of keys") as caught:
        read_keys(path)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return str(caught.value)


def test_a_file_says_who_may_do_what_until_when_and_how_often(tmp_path: Path) -> None:
    [key] = read_keys(written(tmp_path / "keys", GOOD | {"expires_at": "2027-01-01T01:00:00+01:00", "rate": 100}))
    assert (key.id, key.scopes, key.rate) == ("omen-1", frozenset({Scope.INGEST}), 100.0)
    assert key.expires_at is not None
    assert key.expires_at.isoformat() == "2027-01-01T01:00:00+01:00"


@pytest.mark.parametrize(
    "flaw",
    [
        {"id": ""}, {"id": "Omen"}, {"id": "a.b"}, {"id": "a" * 64}, {"id": "a\n"}, {"id": 1},
        {"sha256": "00"}, {"sha256": sha256_of(SECRET).upper()}, {"sha256": SECRET},
        {"scopes": ["everything"]}, {"scopes": "ingest"}, {"scopes": None},
        {"expires_at": "2027-01-01T00:00:00"}, {"expires_at": "soon"}, {"expires_at": 1_800_000_000},
        {"rate": 0}, {"rate": -1}, {"rate": "100"}, {"rate": 1e9}, {"rate": True},
        {"admin": True},
    ],
)  # fmt: skip
def test_a_flaw_of_a_key_is_refused_by_its_place(tmp_path: Path, flaw: dict[str, Any]) -> None:
    said = refused(written(tmp_path / "keys", GOOD, GOOD | {"id": "omen-2"} | flaw))
    place = next(iter(flaw)) if "admin" not in flaw else "?"
    assert f"keys.1.{place}" in said


def test_not_a_number_is_no_rate(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(json.dumps({"keys": [GOOD | {"rate": float("nan")}]}), "utf-8")
    refused(tmp_path / "keys")


def test_two_keys_with_one_id_are_refused(tmp_path: Path) -> None:
    assert "two keys have the same id" in refused(written(tmp_path / "keys", GOOD, GOOD))


def test_more_keys_than_there_may_be_are_refused(tmp_path: Path) -> None:
    keys = [GOOD | {"id": f"omen-{number}"} for number in range(KEYS_MAX + 1)]
    assert len(read_keys(written(tmp_path / "keys", *keys[:-1]))) == KEYS_MAX
    refused(written(tmp_path / "keys", *keys))


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.touch()
    os.truncate(path, 1 << 40)
    assert str(FILE_BYTES_MAX) in refused(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", SECRET, '{"keys": {}}', "[" * 100_000, "\ud800"])
def test_what_is_no_file_of_keys_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys").write_bytes(content.encode("utf-8", "surrogatepass"))
    assert "hunter2" not in refused(tmp_path / "keys")


@pytest.mark.parametrize(
    "keys", [[GOOD | {SECRET: 1}], [GOOD | {"id": SECRET}], [GOOD | {"sha256": SECRET}], [GOOD | {"scopes": [SECRET]}],
             [GOOD | {"expires_at": SECRET}], [GOOD | {"rate": SECRET}], [SECRET]],
)  # fmt: skip
def test_a_key_pasted_in_the_wrong_place_is_not_told(tmp_path: Path, keys: list[Any]) -> None:
    assert "hunter2" not in refused(written(tmp_path / "keys", *keys))
    assert "hunter2" not in refused(written(tmp_path / "keys", **{SECRET: 1}))


def test_a_change_is_taken_over_and_a_broken_or_vanished_file_keeps_the_former_keys_and_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "keys", GOOD)
    keys = Reloaded([path], lambda: read_keys(path))
    (tmp_path / "new").write_text(SECRET, "utf-8")
    (tmp_path / "new").replace(path)
    assert [[key.id for key in keys.current()] for _ in range(3)] == [["omen-1"]] * 3
    path.unlink()
    assert [[key.id for key in keys.current()] for _ in range(3)] == [["omen-1"]] * 3
    said = capsys.readouterr().out
    assert said.count("file_not_reloaded") == 2
    assert "hunter2" not in said
    written(tmp_path / "new", GOOD | {"id": "omen-2"}).replace(path)
    assert [key.id for key in keys.current()] == ["omen-2"]


def test_a_new_key_is_its_id_and_256_random_bits() -> None:
    keys = {new_key("omen-1") for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {len("omen-1.") + 43}
    assert {key.partition(".")[0] for key in keys} == {"omen-1"}
