"""How a server process starts, runs and ends."""

import asyncio
import signal
from pathlib import Path

import pytest
import uvloop

import serving
from tests.serving.child import child, line

UNTIL_STOPPED = """
async def main():
    async with serving.stop_signals() as stop:
        print("running", flush=True)
        await stop.wait()
        print("stopping", flush=True)
        {drain}
    print("put back", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)
serving.run(main())
"""
DRAINS = {
    "quick": "pass",
    "endless": "await asyncio.Event().wait()",
    "stuck": "while True: pass",
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_the_process_to_stop_and_it_ends_in_order(number: signal.Signals) -> None:
    with child(UNTIL_STOPPED.format(drain=DRAINS["quick"])) as process:
        assert line(process) == "running"
        process.send_signal(number)
        assert line(process) == "stopping"
        assert line(process) == "put back True"
        assert process.wait(10) == 0
        assert process.stderr
        assert process.stderr.read() == ""


@pytest.mark.parametrize("drain", ["endless", "stuck"])
@pytest.mark.parametrize(("second", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_the_process_at_once_even_if_its_loop_is_stuck(
    drain: str, second: signal.Signals, exit_code: int
) -> None:
    with child(UNTIL_STOPPED.format(drain=DRAINS[drain])) as process:
        assert line(process) == "running"
        process.send_signal(signal.SIGTERM)
        assert line(process) == "stopping"
        process.send_signal(second)
        assert process.wait(10) == exit_code


def test_a_server_told_to_stop_ends_its_streams_and_exits_with_0() -> None:
    source = """
from tests.serving.probe import Probe, served, open_call, failure
async def for_ever(_context):
    await asyncio.Event().wait()
serving.configure_logging()
async def main():
    probe = Probe(for_ever)
    async with serving.stop_signals() as stop:
        async with served(probe) as running, asyncio.TaskGroup() as tasks:
            channel = serving.channel(running.target)
            streams = [tasks.create_task(failure(open_call(channel, "StreamStream"))) for _ in range(100)]
            await probe.reached(entered=100)
            print("running", flush=True)
            await stop.wait()
            for stream in streams:
                stream.cancel()
    print("left", probe.left, flush=True)
serving.run(main())
"""
    with child(source) as process:
        assert line(process) == "running"
        process.send_signal(signal.SIGTERM)
        assert line(process) == "left 100"
        assert process.wait(10) == 0


def test_run_gives_the_result_or_the_error_of_its_coroutine_on_uvloop() -> None:
    async def which() -> str:
        return type(asyncio.get_running_loop()).__module__

    async def fail() -> None:
        raise ZeroDivisionError

    assert serving.run(which()) == uvloop.Loop.__module__
    with pytest.raises(ZeroDivisionError):
        serving.run(fail())


def test_a_port_file_holds_one_line_and_replaces_the_last_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "port"
    serving.write_port_file(path, 50051)
    with path.open() as before:
        serving.write_port_file(path, 1)
        assert before.read() == "50051\n"
    assert path.read_text() == "1\n"
    assert [each.name for each in tmp_path.iterdir()] == ["port"]
