"""`omen signal`: one signal, lists of them, the ledger followed, and ids derived again."""

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

from contract.errors import timestamp
from contract.pages import page_token
from ledger import Ledger
from omen.v1.signal_pb2 import SIGNAL_CATEGORY_WEATHER
from omen.v1.signal_service_pb2 import WAIT_FOR_LEDGER
from tests.ledger.faults import Answers, append_each
from tests.omen_server.command import Ended, omen_command
from tests.omen_server.days import AGES_AGO, DAY, write_days
from tests.omen_server.running import DEADLINE_S, Omen, closed_port, event, omen
from tests.omen_server.test_list_signals import until_indexed
from tests.riskcast_server.events import event as complete_event
from tests.system.processes import environment


async def command(server: Omen, *arguments: str) -> Ended:
    return await omen_command("signal", *arguments, OMEN_LISTEN=f"127.0.0.1:{server.port}")


async def test_one_signal_is_shown_with_its_place_and_what_is_known_of_its_delivery(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        [emission] = await server.to_ledger(1)
        shown = await command(server, "get", emission.signal_id)
        table = await command(server, "get", emission.signal_id, "-o", "table")
        absent = await command(server, "get", "OMEN-000000000000")
    [found] = json.loads(shown.out)
    assert (shown.code, found["event"]["signal_id"], found["position"]["sequence"]) == (
        0,
        emission.signal_id,
        str(emission.position.sequence),
    )
    assert "UNSPECIFIED" in table.out.splitlines()[1]
    assert (absent.code, absent.out, "SIGNAL_NOT_FOUND" in absent.err) == (3, "", True)


async def test_signals_are_listed_over_pages_up_to_a_limit_and_by_their_question(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        emitted = await server.to_ledger(*range(5))
        await until_indexed(server, emitted[-1])
        everything = await command(server, "list", "-o", "jsonl")
        some = await command(server, "list", "--limit", "2", "-o", "jsonl")
        one = await command(server, "list", "--question", event(3).source_event_id, "-o", "jsonl")
    assert {row["signal_id"] for row in everything.rows} == {emission.signal_id for emission in emitted}
    assert (len(some.rows), "more" in some.err) == (2, True)
    assert [row["signal_id"] for row in one.rows] == [emitted[3].signal_id]


async def test_signals_are_listed_by_their_category_and_in_a_table_without_what_a_list_does_not_tell(
    tmp_path: Path,
) -> None:
    async with omen(tmp_path, closed_port()) as server:
        await server.to_ledger(1)
        weather = event(2)
        weather.signal.category = SIGNAL_CATEGORY_WEATHER
        found = await server.emit(weather, wait_for=WAIT_FOR_LEDGER)
        await until_indexed(server, found)
        listed = await command(server, "list", "--category", "Weather")
        none = await command(server, "list", "--category", "labor", "-o", "json")
        bad = await command(server, "list", "--category", "sports")
    head, row = (line.split() for line in listed.out.splitlines())
    assert head == ["emitted_at", "signal_id", "category", "probability", "confidence", "title"]
    assert row[1:3] == [found.signal_id, "weather"]
    assert (none.code, none.rows) == (0, [[]])
    assert (bad.code, "is none of geopolitical" in bad.err) == (2, True)


async def begin_watch(server: Omen, *arguments: str) -> Process:
    command = ["-m", "omen_server", "signal", "watch", *arguments]
    settings = environment({"OMEN_LISTEN": f"127.0.0.1:{server.port}"})
    return await asyncio.create_subprocess_exec(sys.executable, *command, env=settings, stdout=PIPE, stderr=PIPE)


async def told_by(watch: Process, count: int) -> list[Any]:
    """Its next so many lines, once they are there."""
    assert watch.stdout
    async with asyncio.timeout(DEADLINE_S):
        return [json.loads(await watch.stdout.readline()) for _ in range(count)]


async def ended(watch: Process) -> tuple[str, str]:
    """What it still told, and its words."""
    async with asyncio.timeout(DEADLINE_S):
        more, words = await watch.communicate()
    assert watch.returncode == 0, words
    return more.decode(), words.decode()


async def test_a_watch_tells_each_record_in_a_line_and_goes_on_over_a_restart(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        emitted = await server.to_ledger(*range(20))
        beginning = page_token(f"WatchSignals {emitted[0].position.ledger_id}", "0")
        watch = await begin_watch(server, "--cursor", beginning, "--limit", "40")
        told = await told_by(watch, 20)
    async with omen(tmp_path, closed_port(), listen=f"127.0.0.1:{server.port}") as server:
        emitted += await server.to_ledger(*range(20, 41))
        told += await told_by(watch, 20)
        more, words = await ended(watch)
        again = await command(server, "watch", "--cursor", told[-2]["cursor"], "--limit", "1")
        bad = await command(server, "watch", "--cursor", "x")
    assert [line["event"]["signal_id"] for line in told] == [each.signal_id for each in emitted[:40]]
    assert more == ""
    assert re.fullmatch(r"(going on after: .*\n)+", words)
    assert again.rows == told[-1:]
    assert (bad.code, "INVALID_PAGE_TOKEN" in bad.err) == (2, True)


async def test_a_watch_without_a_cursor_begins_with_what_is_emitted_from_then_on(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        emitted = await server.to_ledger(0)
        watch = await begin_watch(server, "--limit", "1")
        first = asyncio.create_task(told_by(watch, 1))
        while not first.done():
            emitted += await server.to_ledger(len(emitted))
        await ended(watch)
    [line] = await first
    assert line["event"]["signal_id"] in {each.signal_id for each in emitted[1:]}


async def test_a_watch_behind_a_pruned_day_says_how_to_go_on_and_then_what_is_gone(tmp_path: Path) -> None:
    write_days(tmp_path)
    with Ledger.open(tmp_path, on_commit=Answers()) as ledger:
        ledger.seal(DAY)
        assert list(ledger.prune(DAY))
        cursor = page_token(f"WatchSignals {ledger.ledger_id}", "0")  # nothing told
    async with omen(tmp_path, closed_port()) as server:
        [emission] = await server.to_ledger(1)
        ended = await command(server, "watch", "--cursor", cursor)
        passed = await command(server, "watch", "--cursor", cursor, "--pass-over-pruned", "--limit", "1")
    assert (ended.code, ended.rows) == (3, [])
    assert f"--pass-over-pruned --cursor {cursor}" in ended.err
    assert passed.err.splitlines() == [f"{DAY}: sequences 4294967297 to 4294967300 were pruned"]
    assert [row["position"]["sequence"] for row in passed.rows] == [str(emission.position.sequence)]


async def test_ids_are_derived_again_from_the_files_and_one_that_does_not_hold_is_found(tmp_path: Path) -> None:
    good, bad = complete_event(1), complete_event(2)
    bad.deterministic_trace_id = "0" * 16
    for each in (good, bad):
        each.emitted_at.CopyFrom(timestamp(AGES_AGO))
    with Ledger.open(tmp_path, on_commit=(answers := Answers()), now=lambda: AGES_AGO) as ledger:
        append_each(ledger, answers, [good.SerializeToString(), bad.SerializeToString()], AGES_AGO)
    right = await omen_command("signal", "verify-id", good.signal_id, "--dir", str(tmp_path), "-o", "jsonl")
    wrong = await omen_command("signal", "verify-id", bad.signal_id, "--dir", str(tmp_path), "-o", "jsonl")
    absent = await omen_command("signal", "verify-id", "OMEN-000000000000", "--dir", str(tmp_path))
    assert (right.code, {row["holds"] for row in right.rows}) == (0, {True})
    assert {row["what"] for row in right.rows} >= {"trace id", "signal id"}
    assert (wrong.code, [row["what"] for row in wrong.rows if not row["holds"]]) == (7, ["trace id"])
    assert absent.code == 3
