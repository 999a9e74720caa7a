"""Which partitions and ledgers a request means, by table."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contract.errors import ContractError, timestamp
from omen.v1.ledger_service_pb2 import PartitionSummary
from riskcast.v1.reconcile_service_pb2 import ReconcileRequest
from riskcast_server.ledger_client import LedgerClient, Survey
from riskcast_server.resume import Stage, Standing
from riskcast_server.selection import Kind, check, chosen, lost, steps, steps_left
from tests.riskcast_server.events import LEDGER, OTHER_LEDGER

NOW = datetime(2026, 2, 2, 12, tzinfo=UTC)
LATER, BEFORE = timestamp(NOW + timedelta(seconds=1)), timestamp(NOW)


@pytest.mark.parametrize(
    ("summary", "request_fields", "expected"),
    [
        ({"due_at": LATER}, {}, Kind.SKIP),
        ({}, {}, Kind.SKIP),
        ({"due_at": BEFORE}, {}, Kind.COMPARE),
        ({"due_at": LATER, "is_sealed": True}, {}, Kind.COMPARE),
        ({"due_at": LATER, "is_late": True}, {}, Kind.COMPARE),
        ({"due_at": LATER, "is_damaged": True}, {}, Kind.COMPARE),
        ({"due_at": LATER}, {"include_open": True}, Kind.COMPARE),
        ({"due_at": LATER}, {"partitions": ["2026-02-01"]}, Kind.COMPARE),
        ({"is_sealed": True}, {"partitions": ["2026-02-02"]}, None),
        ({"is_sealed": True}, {"since_days": 1}, None),
        ({"is_sealed": True}, {"since_days": 2}, Kind.COMPARE),
        ({"is_sealed": True, "partition": "2026-02-01-late"}, {"since_days": 1}, None),
        ({"is_sealed": True, "partition": "2026-02-01-late"}, {"since_days": 2}, Kind.COMPARE),
    ],
)
def test_the_table_of_scopes(summary: dict[str, Any], request_fields: dict[str, Any], expected: Kind | None) -> None:
    listing = replace(survey(LEDGER), partitions=[PartitionSummary(**{"partition": "2026-02-01", **summary})])
    found = [step.kind for step in steps([listing], ReconcileRequest(**request_fields), NOW)]
    assert found == ([] if expected is None else [expected])


def survey(ledger_id: str, *partitions: str, failure: str = "") -> Survey:
    client = LedgerClient.__new__(LedgerClient)
    return Survey(client, ledger_id, [PartitionSummary(partition=each) for each in partitions], failure)


def test_only_the_ledgers_asked_for_and_those_that_may_be_one_of_them() -> None:
    known, other, unknown = survey(LEDGER), survey(OTHER_LEDGER), survey("", failure="UNAVAILABLE")
    assert chosen([known, other, unknown], ReconcileRequest()) == [known, other, unknown]
    assert chosen([known, other, unknown], ReconcileRequest(ledger_ids=[LEDGER])) == [known, unknown]


def test_a_partition_that_an_unreachable_ledger_may_have_is_not_said_to_be_missing() -> None:
    request = ReconcileRequest(partitions=["2026-02-01"])
    both = [survey(LEDGER), survey(OTHER_LEDGER, failure="UNAVAILABLE")]
    assert chosen(both, request) == both
    with pytest.raises(ContractError, match="no ledger has this partition"):
        chosen([survey(LEDGER, "2026-02-02")], request)
    known_here = [replace(survey(LEDGER), lost=["2026-02-01"])]
    assert chosen(known_here, request) == known_here


def test_lost_is_what_is_settled_of_a_ledger_and_not_listed_by_it() -> None:
    settled = {(LEDGER, "2026-02-01"), (LEDGER, "2026-02-02"), (OTHER_LEDGER, "2026-02-03"), ("", "")}
    assert lost(survey(LEDGER, "2026-02-02"), settled) == ["2026-02-01"]
    assert lost(survey(LEDGER, failure="UNAVAILABLE"), settled) == []


SEALED = ReconcileRequest(include_open=True)
PLANNED = [
    replace(survey(LEDGER, "2026-02-02", "2026-02-04"), lost=["2026-02-03"]),
    replace(survey("", failure="UNAVAILABLE"), number=1),
    replace(survey(OTHER_LEDGER, "2026-02-01"), number=2),
]
EVERY = [(0, "2026-02-02"), (0, "2026-02-03"), (0, "2026-02-04"), (1, ""), (2, "2026-02-01")]


def test_steps_are_taken_ledger_by_ledger_in_the_order_of_the_partitions() -> None:
    found = steps(PLANNED, SEALED, NOW)
    assert [step.place for step in found] == EVERY
    assert [step.kind for step in found] == [
        *(Kind.COMPARE, Kind.LOST, Kind.COMPARE),
        *(Kind.UNREACHABLE, Kind.COMPARE),
    ]


@pytest.mark.parametrize(
    ("stage", "place", "expected"),
    [
        (Stage.RUN_STARTED, (0, ""), EVERY),
        (Stage.PARTITION_STARTED, (0, "2026-02-03"), EVERY[1:]),
        (Stage.PARTITION_FINISHED, (0, "2026-02-03"), EVERY[2:]),
        (Stage.PARTITION_FINISHED, (1, ""), EVERY[4:]),
        (Stage.PARTITION_STARTED, (1, "2026-02-01"), EVERY[3:]),  # it could be reached when the run was cut
        (Stage.PARTITION_FINISHED, (2, "2026-02-01"), []),
        (Stage.RUN_FINISHED, (2, "2026-02-01"), []),
    ],
)
def test_a_run_goes_on_with_the_steps_that_were_not_told_to_their_end(
    stage: Stage, place: tuple[int, str], expected: list[tuple[int, str]]
) -> None:
    standing = Standing("run", 0, stage, *place)
    assert [step.place for step in steps_left(steps(PLANNED, SEALED, NOW), standing)] == expected


def test_every_wrong_field_is_named() -> None:
    request = ReconcileRequest(ledger_ids=[LEDGER, "x"], partitions=["x"] * 257, since_days=36_501)
    with pytest.raises(ContractError) as caught:
        check(request)
    assert [each.field for each in caught.value.violations] == ["ledger_ids[1]", "partitions", "since_days"]
