"""The commands about dead letters, each a process of its own, beside a server in this one."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from omen.v1 import signal_service_pb2 as signal_pb
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from serving.console import Exit
from tests.omen_server.command import Ended, omen_command
from tests.omen_server.letters import listed
from tests.omen_server.running import Omen, closed_port, event, omen
from tests.omen_server.scripted_riskcast import answering, peer_of, stored

ERRORS = [
    signal_pb.ItemError(code=3, reason="INVALID_SIGNAL", message="the signal is invalid"),
    signal_pb.ItemError(code=3, reason="SIGNAL_ID_MISMATCH", message="another id"),
]


@asynccontextmanager
async def two_dead_letters(directory: Path) -> AsyncIterator[Omen]:
    """For different reasons; what is sent again after them is taken."""
    verdicts = iter([ingest_pb.RecordResult(outcome=ingest_pb.RECORD_OUTCOME_REJECTED, error=each) for each in ERRORS])
    judge = answering(lambda record: next(verdicts, None) or stored(record))
    async with peer_of(judge) as peer, omen(directory, peer.port) as server:
        for number in (1, 2):
            await server.emit(event(number))
        yield server


async def delivery(server: Omen, *arguments: str) -> Ended:
    return await omen_command("delivery", *arguments, "--target", f"127.0.0.1:{server.port}")


async def test_dead_letters_are_listed_for_people_and_for_programs(tmp_path: Path) -> None:
    async with two_dead_letters(tmp_path) as server:
        first, second = await listed(server)
        table = await delivery(server, "dead-letters")
        lines = await delivery(server, "dead-letters", "-o", "jsonl")
        one = await delivery(server, "dead-letters", "--reason-code", "SIGNAL_ID_MISMATCH", "-o", "jsonl")
        none = await delivery(server, "dead-letters", "--partition", "2020-01-01", "-o", "json")
    position = f"{first.record.position.partition}/{first.record.position.sequence}"
    assert table.out.splitlines()[0].split()[:4] == ["position", "signal_id", "reason", "message"]
    assert table.out.splitlines()[1].startswith(position)
    assert all(word in table.out for word in ("the signal is invalid", "waiting", "Will it close?"))
    assert [row["rejection"]["reason"] for row in lines.rows] == ["INVALID_SIGNAL", "SIGNAL_ID_MISMATCH"]
    assert [row["attempt_count"] for row in lines.rows] == [1, 1]
    assert lines.rows[0]["event"]["signal"]["title"] == "Will it close?"
    assert [row["record"]["position"]["sequence"] for row in one.rows] == [str(second.record.position.sequence)]
    assert (none.code, none.out) == (Exit.OK, "[]\n")


async def test_dead_letters_are_given_up_by_position_with_a_reason_that_is_shown(tmp_path: Path) -> None:
    async with two_dead_letters(tmp_path) as server:
        at = (await listed(server))[0].record.position
        position = f"{at.partition}/{at.sequence}"
        dropped = await delivery(server, "drop", "--position", position, "--reason", "a test signal")
        again = await delivery(server, "drop", "--position", position, "--reason", "once more")
        table = await delivery(server, "dead-letters", "--position", position)
    assert (dropped.code, dropped.out, dropped.err) == (Exit.OK, "", "1 dead letters are given up\n")
    assert (again.code, again.err) == (Exit.NOT_FOUND, "no such dead letter, or it was given up before\n")
    assert "dropped: a test signal" in table.out


async def test_what_was_steered_is_told_to_programs_as_data(tmp_path: Path) -> None:
    async with two_dead_letters(tmp_path) as server:
        dropped = await delivery(server, "drop", "--reason-code", "INVALID_SIGNAL", "--reason", "a test", "-o", "json")
        nothing = await delivery(server, "drop", "--partition", "2020-01-01", "--reason", "a test", "-o", "jsonl")
        redriven = await delivery(server, "redrive", "--reason-code", "SIGNAL_ID_MISMATCH", "-o", "json")
        paused = await delivery(server, "pause", "--reason", "a test", "-o", "json")
        resumed = await delivery(server, "resume", "-o", "jsonl")
        again = await delivery(server, "resume", "-o", "json")
    assert json.loads(dropped.out) == [{"dropped_count": 1}]
    assert (nothing.code, nothing.rows) == (Exit.NOT_FOUND, [{"dropped_count": 0}])
    assert json.loads(redriven.out) == [{"redriven_count": 1}]
    [pause] = json.loads(paused.out)
    assert (list(pause), paused.err) == (["paused_at"], "delivery is paused\n")
    assert resumed.rows == [{"was_paused": True}]
    assert json.loads(again.out) == [{"was_paused": False}]


async def test_dead_letters_are_redriven_by_reason_and_none_of_the_kind_is_exit_code_3(tmp_path: Path) -> None:
    async with two_dead_letters(tmp_path) as server:
        redriven = await delivery(server, "redrive", "--reason-code", "INVALID_SIGNAL")
        while len(await listed(server)) > 1:
            pass
        nothing = await delivery(server, "redrive", "--reason-code", "INVALID_SIGNAL")
    assert (redriven.code, redriven.out, redriven.err) == (Exit.OK, "", "1 dead letters are sent again\n")
    assert (nothing.code, nothing.err) == (Exit.NOT_FOUND, "no such dead letter\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("redrive",), "filter must not be empty"),
        (("drop", "--position", "2026-01-29/4294967297", "--reason", ""), "reason required"),
        (("redrive", "--position", "2026-01-29"), "is no position such as"),
        (("dead-letters", "--position", "2026-01-29/5"), "filter.positions[0].sequence"),
    ],
)
async def test_what_picks_nothing_or_cannot_be_understood_is_a_usage_error(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    async with omen(tmp_path, closed_port()) as server:
        ended = await delivery(server, *arguments)
    assert (ended.code, ended.out) == (Exit.USAGE, "")
    assert said in " ".join(ended.err.split())
