"""`omen ledger prune`: says what it would do, does it when told to, and refuses with a reason."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer import BadParameter

from omen_server.cli.retention import an_age, has_ended
from tests.omen_server.command import Ended, omen_command
from tests.omen_server.days import AGES_AGO, DAY, write_days
from tests.omen_server.running import Omen, closed_port, omen
from tests.omen_server.test_prune import both, files, until_sealed

AGE = f"{(datetime.now(UTC) - AGES_AGO).days - 1}d"  # the day ended about as long ago
OLDER = f"{(datetime.now(UTC) - AGES_AGO).days + 2}d"


@pytest.fixture(autouse=True)
def days(tmp_path: Path) -> None:
    write_days(tmp_path / "ledger", AGES_AGO)


async def prune(server: Omen, *arguments: str) -> Ended:
    return await omen_command("ledger", "prune", *arguments, "-o", "jsonl", OMEN_LISTEN=f"127.0.0.1:{server.port}")


async def test_without_apply_it_says_what_it_would_remove_and_with_it_removes_that(tmp_path: Path) -> None:
    async with both(tmp_path) as running:
        run_id = (await running.reconcile()).run_id
        await running.omen.to_ledger(1)
        before = files(tmp_path)
        would_be = await prune(running.omen, "--older-than", AGE)
        assert files(tmp_path) == before
        younger = await prune(running.omen, "--older-than", OLDER, "--apply")
        assert files(tmp_path) == before
        done = await prune(running.omen, "--older-than", AGE, "--apply")
        assert [*files(tmp_path)] == ["SEAL"]
        again = await prune(running.omen, "--older-than", AGE, "--apply")
    size = sum(len(data) for name, data in before.items() if name != "SEAL")
    row = {"partition": DAY, "state": "can be pruned", "records": 4, "bytes": size, "reconcile_run_id": run_id}
    assert (would_be.code, would_be.err, would_be.rows) == (0, "", [row])
    assert (younger.code, younger.rows) == (0, [])
    assert (done.code, done.err, done.rows) == (0, "", [{**row, "state": "pruned"}])
    assert (again.code, again.err, again.rows) == (0, "", [])


async def test_what_is_old_enough_and_refused_is_named_with_its_reason_and_makes_6(tmp_path: Path) -> None:
    write_days(tmp_path / "ledger", AGES_AGO, AGES_AGO + timedelta(days=1))
    async with omen(tmp_path / "ledger", closed_port()) as server:
        await until_sealed(server)
        for arguments in ((), ("--apply",)):
            ended = await prune(server, "--older-than", AGE, *arguments)
            assert (ended.code, ended.rows) == (6, [])
            assert ended.err.startswith(f"{DAY}: NOT_SETTLED: ")
    assert "SEAL" in files(tmp_path)
    assert len(files(tmp_path)) > 1


async def test_an_override_needs_a_reason_and_the_partitions_it_is_about(tmp_path: Path) -> None:
    async with omen(tmp_path / "ledger", closed_port()) as server:
        await until_sealed(server)
        unnamed = await prune(server, "--older-than", AGE, "--apply", "--unsettled-reason", "it is gone")
        assert (unnamed.code, len(files(tmp_path)) > 1) == (2, True)
        younger = await prune(server, DAY, "--older-than", OLDER, "--apply", "--unsettled-reason", "it is gone")
        assert (younger.code, younger.err, len(files(tmp_path)) > 1) == (0, f"{DAY} is not that old\n", True)
        done = await prune(server, DAY, "--older-than", AGE, "--apply", "--unsettled-reason", "it is gone")
        assert (done.code, [row["partition"] for row in done.rows]) == (0, [DAY])
        absent = await prune(server, "2020-01-01", "--older-than", AGE)
        assert (absent.code, "PARTITION_NOT_FOUND" in absent.err) == (3, True)
    assert [*files(tmp_path)] == ["SEAL"]


async def test_partitions_that_are_unknown_or_refused_are_named_and_the_others_are_pruned(tmp_path: Path) -> None:
    async with omen(tmp_path / "ledger", closed_port()) as server:
        await until_sealed(server)
        [emission] = await server.to_ledger(1)
        today = emission.position.partition
        named = ["2020-01-01", today, "yesterday", DAY, "2020-01-02"]
        ended = await prune(server, *named, "--older-than", "0d", "--apply", "--unsettled-reason", "it is gone")
        absent = await prune(server, "2020-01-01", "2020-01-02", "--older-than", AGE)
    assert (ended.code, [row["partition"] for row in ended.rows]) == (6, [DAY])
    told = [line.split(": ")[:2] for line in ended.err.splitlines()]
    assert [line for line in told if not line[0].startswith(today)] == [
        ["2020-01-01", "PARTITION_NOT_FOUND"],
        ["yesterday", "PARTITION_NOT_FOUND"],
        ["2020-01-02", "PARTITION_NOT_FOUND"],
    ]
    assert (absent.code, len(absent.err.splitlines())) == (3, 2)


@pytest.mark.parametrize("age", ["90", "d", "90h", "-1d", "9d9d", ""])
def test_an_age_that_is_no_number_of_days_is_refused(age: str) -> None:
    assert an_age("90d") == timedelta(days=90)
    with pytest.raises(BadParameter, match="no number of days"):
        an_age(age)


def test_a_day_is_as_old_as_its_end() -> None:
    end = datetime(2026, 1, 30, tzinfo=UTC)
    for partition in (DAY, f"{DAY}-late"):
        assert has_ended(partition, end)
        assert not has_ended(partition, end - timedelta(microseconds=1))
