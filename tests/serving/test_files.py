"""Files that are read again when they change."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from riskcast_server.store import StoreRefused, schema_versions
from serving.access.keys import read_keys
from serving.dialled import read_key
from serving.files import Reloaded, keep_private, read_regular
from serving.pem import read_ca, read_pair
from tests.serving.authority import trust


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


def test_a_file_is_read_whole_or_as_far_as_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert (read_regular(tmp_path / "file"), read_regular(tmp_path / "file", 2)) == (b"12345", b"12")


READERS: dict[str, Callable[[Path], object]] = {
    "keys": read_keys,
    "key": read_key,
    "certificate": lambda path: read_pair(path, path),
    "private key": lambda path: read_pair(trust(path.parent).ca_file, path),
    "authority": read_ca,
    "store": schema_versions,
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("reader", READERS)
def test_what_would_wait_for_a_writer_is_refused_at_once(reader: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises((OSError, StoreRefused), match="no regular file"):
        READERS[reader](tmp_path / "fifo")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no regular file") as refused:
        read_regular(tmp_path)
    assert refused.value.filename == str(tmp_path)
