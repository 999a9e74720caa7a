"""Which partitions and ledgers a request means, by table."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contract.errors import ContractError, timestamp
from omen.v1.ledger_service_pb2 import PartitionSummary
from riskcast.v1.reconcile_service_pb2 import ReconcileRequest
from riskcast_server.ledger_client import LedgerClient, Survey
from riskcast_server.selection import Scope, check, chosen, lost, scope
from tests.riskcast_server.events import LEDGER, OTHER_LEDGER

NOW = datetime(2026, 2, 2, 12, tzinfo=UTC)
LATER, BEFORE = timestamp(NOW + timedelta(seconds=1)), timestamp(NOW)


@pytest.mark.parametrize(
    ("summary", "request_fields", "expected"),
    [
        ({"due_at": LATER}, {}, Scope.SKIP),
        ({}, {}, Scope.SKIP),
        ({"due_at": BEFORE}, {}, Scope.COMPARE),
        ({"due_at": LATER, "is_sealed": True}, {}, Scope.COMPARE),
        ({"due_at": LATER, "is_late": True}, {}, Scope.COMPARE),
        ({"due_at": LATER, "is_damaged": True}, {}, Scope.COMPARE),
        ({"due_at": LATER}, {"include_open": True}, Scope.COMPARE),
        ({"due_at": LATER}, {"partitions": ["2026-02-01"]}, Scope.COMPARE),
        ({"is_sealed": True}, {"partitions": ["2026-02-02"]}, Scope.OUT),
        ({"is_sealed": True}, {"since_days": 1}, Scope.OUT),
        ({"is_sealed": True}, {"since_days": 2}, Scope.COMPARE),
        ({"is_sealed": True, "partition": "2026-02-01-late"}, {"since_days": 1}, Scope.OUT),
        ({"is_sealed": True, "partition": "2026-02-01-late"}, {"since_days": 2}, Scope.COMPARE),
    ],
)
def test_the_table_of_scopes(summary: dict[str, Any], request_fields: dict[str, Any], expected: Scope) -> None:
    partition = PartitionSummary(**{"partition": "2026-02-01", **summary})
    assert scope(partition, ReconcileRequest(**request_fields), NOW) is expected


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


def test_every_wrong_field_is_named() -> None:
    request = ReconcileRequest(ledger_ids=[LEDGER, "x"], partitions=["x"] * 257, since_days=36_501)
    with pytest.raises(ContractError) as caught:
        check(request)
    assert [each.field for each in caught.value.violations] == ["ledger_ids[1]", "partitions", "since_days"]
