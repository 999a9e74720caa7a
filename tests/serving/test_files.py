"""Files that are read again when they change."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from serving.files import Reloaded, keep_private


class Reader:
    """Reads a file, or fails with what it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failure: Exception | None = None
        self.reads = 0

    def __call__(self) -> str:
        self.reads += 1
        if self.failure:
            raise self.failure
        return self.path.read_text("utf-8")


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    (tmp_path / "file").write_text("one", "utf-8")
    return Reader(tmp_path / "file")


def replaced(path: Path) -> None:
    path.with_name("new").write_text("two", "utf-8")
    path.with_name("new").replace(path)


def rewritten(path: Path) -> None:
    path.write_text("two", "utf-8")


def linked_elsewhere(path: Path) -> None:
    """As a volume of Kubernetes changes: the name stays, a link on the way to it moves."""
    path.with_name("second").write_text("two", "utf-8")
    path.with_name("link").symlink_to("second")
    path.with_name("link").replace(path)


@pytest.mark.parametrize("change", [replaced, rewritten, linked_elsewhere])
def test_a_file_is_read_once_and_again_when_it_has_changed(reader: Reader, change: Callable[[Path], None]) -> None:
    file = Reloaded([reader.path], reader)
    assert [file.current() for _ in range(3)] == ["one"] * 3
    change(reader.path)
    assert [file.current() for _ in range(3)] == ["two"] * 3
    assert reader.reads == 2


def test_what_is_no_such_file_is_told_once_and_not_read_before_it_changes(reader: Reader) -> None:
    file = Reloaded([reader.path], reader)
    reader.failure = ValueError("no such thing")
    with capture_logs() as lines:
        rewritten(reader.path)
        assert [file.current() for _ in range(3)] == ["one"] * 3
    assert [line["error"] for line in lines] == ["no such thing"]
    assert reader.reads == 2


def test_what_cannot_be_read_now_is_told_once_and_read_as_soon_as_it_can_be(reader: Reader) -> None:
    file = Reloaded([reader.path], reader)
    reader.failure = OSError("too many open files")
    with capture_logs() as lines:
        rewritten(reader.path)
        assert [file.current() for _ in range(3)] == ["one"] * 3
        reader.failure = None
        assert file.current() == "two"
    assert [line["event"] for line in lines] == ["file_not_reloaded", "file_reloaded"]


def test_a_file_that_was_given_to_us_is_read_without_having_been_written(reader: Reader) -> None:
    """Whoever wrote it may have made it readable a moment later."""
    file = Reloaded([reader.path], reader)
    reader.failure = ValueError("half")
    rewritten(reader.path)
    assert file.current() == "one"
    reader.failure = None
    reader.path.chmod(0o640)
    assert file.current() == "two"


def test_the_first_reading_raises_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Reloaded([tmp_path / "file"], Reader(tmp_path / "file"))


def test_what_a_command_makes_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        keep_private()
        (tmp_path / "directory").mkdir()
        (tmp_path / "file").touch()
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("directory", "file")] == [0o700, 0o600]
