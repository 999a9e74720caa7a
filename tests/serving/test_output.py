"""What becomes of lines when standard error is closed, full, or read by nobody: the server goes on."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from threading import Thread

import pytest

from serving.telemetry.output import WAIT_MS, Output
from tests.serving.child import ROOT

LOST = b"%d lost\n"


Pipe = tuple[FileIO, FileIO]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Its reading and its writing end; a test may close either."""
    reading, writing = os.pipe()
    with FileIO(reading, "rb") as reader, FileIO(writing, "wb") as writer:
        yield reader, writer


def output_to(file: FileIO) -> Output:
    return Output(file.fileno(), lambda count: LOST % count)


def read_in_the_background(file: FileIO) -> tuple[Thread, bytearray]:
    read = bytearray()

    def drain() -> None:
        while chunk := file.read(65536):
            read.extend(chunk)

    thread = Thread(target=drain)
    thread.start()
    return thread, read


def test_long_lines_of_several_threads_stay_whole(pipe: Pipe) -> None:
    reading, writing = pipe
    output = output_to(writing)
    lines = {letter: letter.encode() * 9_000 for letter in "abcd"}  # longer than what a pipe takes in one piece
    reader, read = read_in_the_background(reading)

    def write(line: bytes) -> None:
        for _ in range(50):
            output.write(line + b"\n")

    threads = [Thread(target=write, args=[line]) for line in lines.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writing.close()
    reader.join()
    assert sorted(bytes(read).splitlines()) == sorted(50 * list(lines.values()))


def test_a_reader_that_has_stopped_delays_the_server_once_and_later_learns_how_much_it_missed(
    pipe: Pipe,
) -> None:
    reading, writing = pipe
    output = output_to(writing)
    line = b"x" * 999 + b"\n"
    began = time.monotonic()
    for _ in range(1_000):
        output.write(line)
    took_s = time.monotonic() - began
    assert WAIT_MS / 1e3 <= took_s < 10 * WAIT_MS / 1e3  # not by that for each of a thousand lines
    reader, read = read_in_the_background(reading)
    while b"lost" not in read:
        output.write(line)
    writing.close()
    reader.join()
    text = bytes(read).decode()
    told = [int(count) for count in re.findall(r"^(\d+) lost$", text, re.MULTILINE)]
    assert sum(told) > 900
    assert set(re.sub(r"\d+ lost\n", "", text)) == {"x", "\n"}
    assert {len(each) for each in text.splitlines()} >= {999}


def test_a_line_that_was_cut_is_not_continued_by_the_next(pipe: Pipe) -> None:
    reading, writing = pipe
    output = output_to(writing)
    output.write(b"y" * 100_000 + b"\n")  # a pipe holds 64 KiB
    read = reading.read(100_000) or b""
    output.write(b"whole\n")
    writing.close()
    first, *others = (read + reading.readall()).splitlines()
    assert set(first) == {ord("y")}
    assert others == [b"1 lost", b"whole"]


def test_a_reader_that_has_left_ends_nothing(pipe: Pipe) -> None:
    reading, writing = pipe
    output = output_to(writing)
    reading.close()
    for _ in range(3):
        output.write(b"nobody hears it\n")


def test_a_full_disk_ends_nothing() -> None:
    with FileIO("/dev/full", "wb") as full:
        output = output_to(full)
        for _ in range(3):
            output.write(b"no room for it\n")


def test_a_closed_standard_error_is_taken_by_nothing_before_a_file_gets_its_number(tmp_path: Path) -> None:
    """gRPC's C core writes to descriptor 2, whatever that is by then."""
    source = f"""
import os, structlog
from serving.telemetry.logs import configure_logging
configure_logging()
ours = os.open({str(tmp_path / "segment")!r}, os.O_WRONLY | os.O_CREAT)
assert ours > 2, ours
os.write(2, b"what the C core says")
structlog.get_logger("ours").error("nobody reads this")
print("ended")
"""
    path = os.pathsep.join([str(ROOT), str(ROOT / "protos")])
    command = ["bash", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, source]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ended\n")
    assert (tmp_path / "segment").read_bytes() == b""
