"""The commands that talk to a server: data alone on stdout, words on stderr, exit codes that tell."""

import asyncio
import json
from importlib.metadata import version
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToJson

from contract.versions import CONTRACT_VERSION, SCHEMA_VERSION
from ledger.format import FORMAT_VERSION
from omen_server.cli.delivery import STATUS_COLUMNS
from omen_server.domain import RULESET_VERSION
from tests.omen_server.command import Ended, omen_command
from tests.omen_server.running import Omen, closed_port, event, omen, riskcast
from tests.omen_server.test_process import accepted, rejected

TABLE_HEAD = ["line", "result", "signal_id", "probability", "confidence", "ack_id", "about"]


def ndjson(*messages: object) -> str:
    return "".join(MessageToJson(message, indent=None) + "\n" for message in messages)  # type: ignore[arg-type]


async def command(server: Omen, *arguments: str, given: str = "") -> Ended:
    return await omen_command(*arguments, given=given, OMEN_LISTEN=f"127.0.0.1:{server.port}")


async def test_process_reads_a_file_and_answers_line_by_line_in_order(tmp_path: Path) -> None:
    file = tmp_path / "observations.ndjson"
    file.write_text(ndjson(accepted()) + "\n" + ndjson(rejected(), accepted()), "utf-8")
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        ended = await command(server, "process", str(file), "-o", "jsonl")
        assert await store.count() == 1
    assert (ended.code, ended.err) == (0, "")
    assert [row["line"] for row in ended.rows] == [1, 3, 4]
    first, second, third = ended.rows
    assert {first["emission"]["status"], third["emission"]["status"]} == {
        "EMISSION_STATUS_DELIVERED",
        "EMISSION_STATUS_DUPLICATE",
    }
    assert first["emission"]["ack_id"] == third["emission"]["ack_id"]
    assert second["rejection"]["source_event_id"] == rejected().source_event_id


async def test_process_reads_standard_input_and_shows_a_table(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        ended = await command(server, "process", "-", "--ledger-only", given=ndjson(accepted(), rejected()))
    head, signal, rejection = ended.out.splitlines()
    assert (ended.code, ended.err) == (0, "")
    assert head.split() == TABLE_HEAD
    assert "LEDGER_ONLY" in signal
    assert accepted().title in signal
    assert "rejected by" in rejection


async def test_a_bad_line_is_told_by_its_number_and_the_others_are_taken(tmp_path: Path) -> None:
    bad = accepted()
    bad.title = ""
    lines = ndjson(accepted()) + "{not json\n" + '{"nobody": 1}\n' + ndjson(bad) + "5\n" + ndjson(rejected())
    async with omen(tmp_path, closed_port()) as server:
        ended = await command(server, "process", "-", "-o", "json", given=lines)
        assert len(await server.records()) == 1
    assert ended.code == 6
    assert [row["line"] for row in json.loads(ended.out)] == [1, 6]
    said = ended.err.splitlines()
    assert [line.partition(":")[0] for line in said] == ["line 2", "line 3", "line 4", "line 5"]
    assert "INVALID_OBSERVATION" in said[2]
    assert "title" in said[2]


async def test_emit_emits_events(tmp_path: Path) -> None:
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        events = ndjson(*(event(number) for number in range(150)))
        ended = await command(server, "emit", "-", "-o", "jsonl", given=events)
        assert await store.count() == 150
    assert ended.code == 0
    assert [row["line"] for row in ended.rows] == list(range(1, 151))
    assert {row["emission"]["status"] for row in ended.rows} == {"EMISSION_STATUS_DELIVERED"}


async def test_without_a_server_a_command_says_so_and_ends_with_5() -> None:
    """Side by side, for each of them waits a while for a server to come up."""
    listen = f"127.0.0.1:{closed_port()}"
    each = {
        "process": omen_command("process", "-", given=ndjson(accepted()), OMEN_LISTEN=listen),
        "emit": omen_command("emit", "-", given=ndjson(event(1)), OMEN_LISTEN=listen),
        "status": omen_command("delivery", "status", OMEN_LISTEN=listen),
        "resume": omen_command("delivery", "resume", OMEN_LISTEN=listen),
    }
    for name, ended in zip(each, await asyncio.gather(*each.values()), strict=True):
        assert (ended.code, ended.out) == (5, ""), name
        assert len(ended.err.splitlines()) == 1, name
        assert ended.err.startswith("UNAVAILABLE"), name


@pytest.mark.parametrize("content", [None, b"\xff\xfe\n"])
async def test_a_file_that_cannot_be_read_is_a_line_and_a_usage_error(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "there"
    if content is not None:
        file.write_bytes(content)
    async with omen(tmp_path / "ledger", closed_port()) as server:
        ended = await command(server, "process", str(file))
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1
    assert str(file) in ended.err


async def test_delivery_can_be_shown_paused_and_resumed(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        before = await command(server, "delivery", "status")
        paused = await command(server, "delivery", "pause", "--reason", "moving [it]")
        status = await command(server, "delivery", "status", "-o", "jsonl")
        table = await command(server, "delivery", "status")
        resumed = await command(server, "delivery", "resume")
        again = await command(server, "delivery", "resume")
        unreasonable = await command(server, "delivery", "pause", "--reason", " ")
    assert "DELIVERY_PHASE_CONNECTING" in before.out
    assert "unknown" in before.out
    assert {"breaker", "oldest_unsettled_age"} <= {*STATUS_COLUMNS}
    assert "BREAKER_STATE_" in before.out
    assert (paused.code, paused.out, paused.err) == (0, "", "delivery is paused\n")
    assert (status.rows[0]["phase"], status.rows[0]["reason"]) == ("DELIVERY_PHASE_PAUSED", "moving [it]")
    assert "backlog_record_count" not in status.rows[0]
    assert "moving [it]" in table.out
    assert resumed.err == "delivery goes on\n"
    assert again.err == "delivery was not paused\n"
    assert (unreasonable.code, unreasonable.out) == (2, "")
    assert "reason" in unreasonable.err


async def test_a_target_given_goes_before_the_setting(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        target = f"127.0.0.1:{server.port}"
        ended = await omen_command("delivery", "status", "--target", target, OMEN_LISTEN="127.0.0.1:1")
    assert ended.code == 0


async def test_the_version_names_everything_that_has_one() -> None:
    ended = await omen_command("--version")
    assert (ended.code, ended.err) == (0, "")
    expected = (version("omen-riskcast"), CONTRACT_VERSION, FORMAT_VERSION, RULESET_VERSION, SCHEMA_VERSION)
    assert ended.out == "omen-riskcast {}, contract {}, ledger format {}, ruleset {}, schema {}\n".format(*expected)


@pytest.mark.parametrize("arguments", [("serve",), ("delivery", "status"), ("process", "-"), ("ledger", "ls")])
async def test_an_unknown_setting_is_refused_by_every_command_with_the_one_that_was_meant(
    arguments: tuple[str, ...],
) -> None:
    ended = await omen_command(*arguments, OMEN_LISTNE="hunter2")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines()[-1] == "OMEN_LISTNE: no such setting; did you mean OMEN_LISTEN?"
    assert "hunter2" not in ended.err
