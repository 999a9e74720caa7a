"""`riskcast signals list`: data alone on stdout, words on stderr, exit codes that tell."""

import asyncio
import json
import subprocess
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from contract.errors import timestamp
from contract.limits import PAGE_SIZE_MAX
from omen.v1.signal_pb2 import SIGNAL_CATEGORY_WEATHER
from riskcast_server.cli import app
from tests.riskcast_server.events import DAY, LEDGER, NOON, event, record, records, with_long_id
from tests.riskcast_server.process import run
from tests.riskcast_server.running import Client, riskcast

Ended = subprocess.CompletedProcess[str]
Command = Callable[..., Coroutine[Any, Any, Ended]]


def command_of(client: Client) -> Command:
    async def command(*arguments: str) -> Ended:
        return await asyncio.to_thread(run, "signals", "list", "--target", client.target, *arguments)

    return command


def ids(ended: Ended) -> list[str]:
    """Of `-o jsonl`."""
    assert (ended.returncode, ended.stderr) == (0, "")
    return [json.loads(line)["event"]["signal_id"] for line in ended.stdout.splitlines()]


def test_every_option_filters_and_all_that_are_given_must_hold(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            command = command_of(client)
            weather, later = event(2), event(3)
            weather.signal.category = SIGNAL_CATEGORY_WEATHER
            later.emitted_at.CopyFrom(timestamp(NOON + timedelta(hours=1)))
            await client.deliver([record(1), record(2, weather)])
            for made in (later, with_long_id(event(1), 32)):
                await client.ingest(made)
            one, two, three = (event(number).signal_id for number in (1, 2, 3))
            asked = {
                ("--from", "2026-01-29T13:00:00Z"): {three},
                ("--before", "2026-01-29T20:00:00+07:00", "--category", "weather"): {two},
                ("--question", "market:1", "--partition", DAY): {one},
                ("--ledger", LEDGER, "--category", "GEOPOLITICAL"): {one},
            }
            answers = await asyncio.gather(*(command(*options, "-o", "jsonl") for options in asked))
            assert [set(ids(answer)) for answer in answers] == list(asked.values())

    asyncio.run(scenario())


def test_it_shows_a_table_or_json_and_says_so_when_there_are_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            command = command_of(client)
            await client.deliver(records(range(1, 4)))
            table = await command("--limit", "3")
            head, *rows = table.stdout.splitlines()
            assert (table.returncode, table.stderr, len(rows)) == (0, "", 3)
            assert head.split() == [
                "emitted_at", "signal_id", "partition", "category", "probability", "confidence", "title",
            ]  # fmt: skip
            assert sorted(event(number).signal_id for number in range(1, 4)) == [row.split()[1] for row in rows]
            assert rows[0].split()[2:4] == [DAY, "geopolitical"]
            cut = await command("--limit", "2", "-o", "json")
            assert (cut.returncode, cut.stderr) == (0, "more are stored: --limit shows more\n")
            assert [each["position"]["partition"] for each in json.loads(cut.stdout)] == [DAY, DAY]
            none = await command("--category", "labor")
            assert (none.returncode, none.stdout, none.stderr) == (0, "", "")

    asyncio.run(scenario())


def test_it_turns_pages_until_the_limit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            count = PAGE_SIZE_MAX + 2
            for start in range(1, count + 1, 200):
                await client.deliver(records(range(start, min(start + 200, count + 1))))
            found = ids(await command_of(client)("--limit", str(count), "-o", "jsonl"))
            assert found == sorted(event(number).signal_id for number in range(1, count + 1))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--from", "2026-01-29T12:00:00"), "has no time zone; write it as 2026-01-29T12:00:00Z"),
        (("--before", "2026-01-29"), "has no time zone; write it as 2026-01-29T12:00:00Z"),
        (("--from", "0001-01-01T00:00:00+14:00"), "is no time such as 2026-01-29T12:00:00Z"),
        (("--from", "yesterday"), "is no time such as 2026-01-29T12:00:00Z"),
        (("--category", "sports"), "is none of geopolitical, infrastructure"),
        (("--limit", "0"), "Invalid value for '--limit'"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anybody_is(options: tuple[str, str], words: str) -> None:
    refused = CliRunner().invoke(app, ["signals", "list", "--target", "127.0.0.1:1", *options])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert words in " ".join(refused.stderr.replace("│", " ").split())
