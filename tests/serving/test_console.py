"""Commands answer with data alone on stdout, words on stderr, and an exit code that tells."""

import json

import grpc
import pytest
import typer

from contract.errors import CODES, ContractError, Reason, Violation, invalid_signal
from serving.addresses import ListenError
from serving.console import EXITS, Exit, Output, Printer, described, finish, run_command, say
from serving.settings import SettingsRefused
from tests.serving.probe import Context, Probe, open_call, responses, served

ROWS = [{"name": "a", "count": 1}, {"name": "b", "count": 2}]


def printed(output: Output, capsys: pytest.CaptureFixture[str], rows: list[dict[str, object]]) -> str:
    with Printer(output, ("name", "count")) as printer:
        for row in rows:
            printer.add(row)
    out, err = capsys.readouterr()
    assert err == ""
    return out


def rows() -> list[dict[str, object]]:
    return [dict(row) for row in ROWS]


def test_jsonl_is_an_object_per_line_as_soon_as_it_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with Printer(Output.JSONL, ("name",)) as printer:
        printer.add(rows()[0])
        assert json.loads(capsys.readouterr().out) == ROWS[0]
        printer.add(rows()[1])
    assert json.loads(capsys.readouterr().out) == ROWS[1]


def test_json_is_one_array(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed(Output.JSON, capsys, rows())) == ROWS
    assert json.loads(printed(Output.JSON, capsys, [])) == []


def test_a_table_has_a_heading_and_a_line_per_row(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(Output.TABLE, capsys, rows()).splitlines()
    assert [line.split() for line in lines] == [["name", "count"], ["a", "1"], ["b", "2"]]
    assert printed(Output.TABLE, capsys, []) == ""


@pytest.mark.parametrize("text", ["[bold]x", "a [/closing] tag", ":smile:", "[link=http://x]y[/link]", "1.5 True None"])
def test_what_others_wrote_is_shown_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert text in printed(Output.TABLE, capsys, [{"name": text}])


HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\n\u202egnp.exe"
HARMLESS = r"\x1b[2J\x1b]0;owned\x07\x9b31m\r\n\u202egnp.exe"


def test_what_others_wrote_moves_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert HARMLESS in printed(Output.TABLE, capsys, [{"name": HOSTILE}])
    assert json.loads(printed(Output.JSON, capsys, [{"name": HOSTILE}])) == [{"name": HOSTILE}]
    say(f"first {HOSTILE}")
    assert capsys.readouterr().err == f"first {HARMLESS}\n".replace(r"\n", "\n")


def test_data_may_say_more_than_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    with Printer(Output.JSONL, ("name",)) as printer:
        printer.add({"name": "a"}, {"name": "a", "more": [1]})
    assert json.loads(capsys.readouterr().out) == {"name": "a", "more": [1]}


def test_a_long_cell_is_not_broken_where_nobody_reads_it_on_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert "x" * 200 in printed(Output.TABLE, capsys, [{"name": "x" * 200}])


def test_finish_ends_with_the_code_unless_it_is_ok() -> None:
    finish(Exit.OK)
    with pytest.raises(typer.Exit) as caught:
        finish(Exit.PARTIAL)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("error", [ListenError("in use"), SettingsRefused("OMEN_X: no such setting")])
def test_a_refused_start_is_a_line_and_a_usage_error(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    async def refused() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        run_command(refused())
    assert caught.value.exit_code == Exit.USAGE
    assert capsys.readouterr() == ("", f"{error}\n")


async def failing(error: ContractError) -> None:
    """A call to a real server that answers with this error."""

    async def script(_context: Context) -> None:
        raise error

    async with (
        served(Probe(script)) as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        await responses(open_call(channel, "UnaryUnary"))


EXIT_OF = {
    Reason.INVALID_SIGNAL: 2,
    Reason.SIGNAL_NOT_FOUND: 3,
    Reason.BAD_CREDENTIALS: 4,
    Reason.SCOPE_MISSING: 4,
    Reason.LEDGER_UNAVAILABLE: 5,
    Reason.LEDGER_DAMAGED: 7,
    Reason.QUEUE_FULL: 1,
    Reason.NOT_IMPLEMENTED: 1,
}


@pytest.mark.parametrize("reason", EXIT_OF)
def test_what_a_server_answers_is_a_line_and_an_exit_code(reason: Reason, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught:
        run_command(failing(ContractError(reason, "because")))
    assert caught.value.exit_code == EXIT_OF[reason]
    assert capsys.readouterr() == ("", f"{reason}: because\n")


def test_a_line_shows_at_most_five_violations(capsys: pytest.CaptureFixture[str]) -> None:
    error = invalid_signal([Violation(f"field{number}", "is wrong") for number in range(7)])
    with pytest.raises(typer.Exit):
        run_command(failing(error))
    said = capsys.readouterr().err
    assert "field4 is wrong" in said
    assert "field5" not in said
    assert len(said.splitlines()) == 1


def test_an_error_of_a_call_is_one_line_whatever_its_server_says(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        run_command(failing(ContractError(Reason.INVALID_SIGNAL, HOSTILE)))
    assert capsys.readouterr().err == f"INVALID_SIGNAL: {HARMLESS}\n"


def test_an_error_that_is_not_rich_shows_its_code() -> None:
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "no route")
    assert described(error) == "UNAVAILABLE: no route"


def test_codes_that_say_who_must_act_have_exit_codes() -> None:
    assert {code.value[0] for code in EXITS} <= {*CODES.values(), grpc.StatusCode.DEADLINE_EXCEEDED.value[0]}
