"""kill -9 under load, orderly ends, and the commands."""

import asyncio
import json
import random
import signal
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

import serving
from contract.coverage import Coverage
from contract.identity import ack_id
from omen.v1.ledger_record_pb2 import LedgerRecord
from riskcast.v1.ingest_service_pb2 import RECORD_OUTCOME_STORED
from tests.riskcast_server.events import SEGMENT, event, records
from tests.riskcast_server.omen import omen
from tests.riskcast_server.process import Server, run, server
from tests.riskcast_server.running import Client, Stream, riskcast, sql

BATCHES, BATCH = 60, 20
STREAMED = [records(range(start, start + BATCH)) for start in range(1, BATCHES * BATCH, BATCH)]


async def load(running: Server, kill_after: int) -> dict[str, str]:
    """Streams batches until the server is killed, in the middle of it; ack_ids by signal_id, as acknowledged."""
    acks: dict[str, str] = {}

    async def send(stream: Stream) -> None:
        for batch in STREAMED:
            await stream.send(batch)

    async with serving.channel(running.target) as channel, Client(channel).stream() as stream:
        sending = asyncio.create_task(send(stream))
        with suppress(grpc.aio.AioRpcError):  # what the killing looks like from here
            for number, batch in enumerate(STREAMED):
                if number == kill_after:
                    running.child.kill()
                for record, result in zip(batch, await stream.results(), strict=True):
                    assert result.outcome == RECORD_OUTCOME_STORED
                    acks[event(record.position.sequence & 0xFFFFFFFF).signal_id] = result.ack_id
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    return acks


async def check_what_is_left(directory: Path, acks: dict[str, str]) -> None:
    stored = dict(sql(directory, "SELECT signal_id, ack_id FROM signals"))
    assert acks.items() <= stored.items()
    async with riskcast(directory) as client:
        hello = await client.hello(SEGMENT)
        indexes = [index for (index,) in sql(directory, "SELECT record_index FROM signals")]
        ranges = [(each.first, each.last) for settled in hello.settled for each in settled.ranges]
        assert Coverage.spanning(ranges) == Coverage.of(indexes)
        assert hello.settled_count == len(stored)
        every: list[LedgerRecord] = [record for batch in STREAMED for record in batch]
        for start in range(0, len(every), 200):
            batch = every[start : start + 200]
            for record, result in zip(batch, await client.deliver(batch), strict=True):
                known = event(record.position.sequence & 0xFFFFFFFF)
                assert result.outcome == RECORD_OUTCOME_STORED
                assert result.ack_id == acks.get(known.signal_id, ack_id(known.signal_id, known.input_event_hash))
        assert await client.count() == BATCHES * BATCH


@pytest.mark.parametrize("seed", range(4))
def test_after_kill_9_under_load_everything_acknowledged_is_there_and_a_resend_gets_the_same_ack_ids(
    tmp_path: Path, seed: int
) -> None:
    with server(tmp_path) as running:
        acks = asyncio.run(load(running, random.Random(seed).randrange(1, BATCHES // 2)))
        assert running.child.wait() == -signal.SIGKILL
        assert 0 < len(acks) < BATCHES * BATCH
    asyncio.run(check_what_is_left(tmp_path, acks))


def test_a_server_answers_its_commands_refuses_a_second_one_and_ends_with_exit_code_0(tmp_path: Path) -> None:
    async def scenario(running: Server) -> None:
        async with serving.channel(running.target) as channel:
            await Client(channel).ingest(event(1))

    with server(tmp_path, RISKCAST_OMEN_TARGETS="127.0.0.1:1") as running:
        asyncio.run(scenario(running))
        at = ("--target", running.target)
        counted = run("signals", "count", *at, "-o", "json")
        assert json.loads(counted.stdout) == [{"ledger_id": "", "partition": "", "signal_count": 1}]
        got = run("signals", "get", event(1).signal_id, *at)
        assert json.loads(got.stdout)[0]["event"]["signal_id"] == event(1).signal_id
        missing = run("signals", "get", event(2).signal_id, *at)
        assert (missing.returncode, missing.stdout) == (3, "")
        assert missing.stderr == "SIGNAL_NOT_FOUND: no such signal is stored\n"
        unreachable = run("reconcile", *at, "-o", "jsonl")
        assert unreachable.returncode == 5
        assert json.loads(unreachable.stdout)["status"] == "FAILED"
        second = run("serve", RISKCAST_LISTEN="127.0.0.1:0", RISKCAST_DATABASE_URL=f"sqlite:///{tmp_path}/riskcast.db")
        assert (second.returncode, second.stderr) == (5, f"{tmp_path}/riskcast.db is in use by another RiskCast\n")
        assert (tmp_path / "port").read_text() == f"{running.port}\n"
        running.child.send_signal(signal.SIGTERM)
        assert running.child.wait(timeout=10) == 0


def test_reconcile_exits_6_when_something_is_not_stored(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with omen(tmp_path / "ledger") as (served, target), riskcast(tmp_path, omen_targets=(target,)) as client:
            served.append([event(1), b"no event"])
            asked = await asyncio.to_thread(run, "reconcile", "--target", client.target, "-o", "jsonl")
            assert asked.returncode == 6
            row = json.loads(asked.stdout)
            assert (row["status"], row["missing"], row["replayed"], row["failed"]) == ("PARTIAL", 2, 1, 1)
            sql(tmp_path, "DELETE FROM settlements")
            dry = await asyncio.to_thread(run, "reconcile", "--target", client.target, "--dry-run")
            assert dry.returncode == 6
            assert "NOT_FETCHED" in dry.stdout

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"RISKCAST_LISTN": "secret"}, "RISKCAST_LISTN: no such setting; did you mean RISKCAST_LISTEN?"),
        ({"RISKCAST_LISTEN": "0.0.0.0:0"}, "pass --insecure to allow"),
    ],
)
def test_a_setting_that_is_unknown_or_unsafe_is_refused_in_one_line_without_its_value(
    tmp_path: Path, settings: dict[str, str], line: str
) -> None:
    refused = run("serve", **{"RISKCAST_DATABASE_URL": f"sqlite:///{tmp_path}/riskcast.db", **settings})
    assert refused.returncode == 2
    assert line in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert "secret" not in refused.stderr
    assert list(tmp_path.iterdir()) == []
