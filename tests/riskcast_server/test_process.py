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
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1.ingest_service_pb2 import RECORD_OUTCOME_STORED, IngestHelloResult
from tests.riskcast_server.databases import Database
from tests.riskcast_server.events import SEGMENT, event, records
from tests.riskcast_server.omen import omen
from tests.riskcast_server.process import Server, run, server
from tests.riskcast_server.running import Client, Stream, riskcast, sql
from tests.system.processes import DEADLINE_S, spawned

KILLS, BATCHES, BATCH = 10, 30, 20
EVERY = KILLS * BATCHES * BATCH


def batches_of(turn: int) -> list[list[LedgerRecord]]:
    """The records that are new in a turn, counted from 0."""
    first = turn * BATCHES * BATCH + 1
    return [records(range(start, start + BATCH)) for start in range(first, first + BATCHES * BATCH, BATCH)]


def index_of(record: LedgerRecord) -> int:
    return record.position.sequence & 0xFFFFFFFF


def settled_in(hello: IngestHelloResult) -> Coverage:
    return Coverage.spanning((each.first, each.last) for segment in hello.settled for each in segment.ranges)


async def load(running: Server, batches: list[list[LedgerRecord]], kill_after: int, acks: dict[int, str]) -> None:
    """Streams until the server is killed, in the middle of it; `acks` are ack_ids by index, as acknowledged so far."""

    async def send(stream: Stream) -> None:
        for batch in batches:
            await stream.send(batch)

    async with serving.channel(running.target) as channel, Client(channel).stream(SEGMENT) as stream:
        assert Coverage.of(acks) - settled_in(stream.hello) == Coverage()
        sending = asyncio.create_task(send(stream))
        with suppress(grpc.aio.AioRpcError):  # what the killing looks like from here
            for number, batch in enumerate(batches):
                if number == kill_after:
                    running.child.kill()
                for record, result in zip(batch, await stream.results(), strict=True):
                    assert result.outcome == RECORD_OUTCOME_STORED
                    assert acks.setdefault(index_of(record), result.ack_id) == result.ack_id
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def check_what_is_left(database_url: str, acks: dict[int, str]) -> None:
    async with riskcast(database_url) as client:
        stored = {signal.position.sequence & 0xFFFFFFFF: signal async for signal in client.listed()}
        assert acks.items() <= {index: signal.ack_id for index, signal in stored.items()}.items()
        hello = await client.hello(SEGMENT)
        assert settled_in(hello) == Coverage.of(stored)
        assert hello.settled_count == await client.count() == len(stored)
        every = [record for turn in range(KILLS) for batch in batches_of(turn) for record in batch]
        for start in range(0, EVERY, 200):
            batch = every[start : start + 200]
            for record, result in zip(batch, await client.deliver(batch), strict=True):
                known = SignalEvent.FromString(record.event)
                assert result.outcome == RECORD_OUTCOME_STORED
                assert result.ack_id == ack_id(known.signal_id, known.input_event_hash)
                assert acks.get(index_of(record), result.ack_id) == result.ack_id
        assert await client.count() == EVERY


def test_after_kill_9_under_load_everything_acknowledged_is_there_and_a_resend_gets_the_same_ack_ids(
    tmp_path: Path, database: Database
) -> None:
    chance, acks = random.Random(4), dict[int, str]()
    for turn in range(KILLS):
        again = batches_of(turn - 1) if turn else []
        kill_after = len(again) + chance.randrange(1, BATCHES // 2)
        with server(tmp_path, RISKCAST_DATABASE_URL=database.url) as running:
            asyncio.run(load(running, again + batches_of(turn), kill_after, acks))
            assert running.child.wait(DEADLINE_S) == -signal.SIGKILL
        assert turn * BATCHES * BATCH < len(acks) < (turn + 1) * BATCHES * BATCH
    asyncio.run(check_what_is_left(database.url, acks))


def test_a_server_answers_its_commands_refuses_a_second_one_and_ends_with_exit_code_0(tmp_path: Path) -> None:
    async def scenario(running: Server) -> None:
        async with serving.channel(running.target) as channel:
            await Client(channel).ingest(event(1))

    with server(tmp_path, spawned, RISKCAST_OMEN_TARGETS="127.0.0.1:1") as running:
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
