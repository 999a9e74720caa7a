"""riskcast.v1.ReconcileService."""

import re
from typing import Any, TypeAlias

import grpc

from contract.checks import MessageRules, Rule, optional, text
from contract.errors import invalid_signal
from contract.limits import OPERATOR_REASON_CHARS_MAX
from contract.pages import key_of_token, not_a_token, page_size_of, page_token
from contract.validation import PARTITION, UUID, ledger_id, partition
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceServicer
from riskcast_server.reconcile import Messages, Reconciler
from riskcast_server.store import Runs, StateKey, StatesQuery

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

KEY = re.compile(rf"({UUID})\|((?:{PARTITION})?)\|([0-9]{{1,15}})")

STATES = MessageRules(Rule("ledger_id", optional(ledger_id)), Rule("partition", optional(partition)))
ACCEPT = MessageRules(Rule("ledger_id", ledger_id), Rule("reason", text(OPERATOR_REASON_CHARS_MAX, least=1)))


class ReconcileService(ReconcileServiceServicer):
    def __init__(self, reconciler: Reconciler, runs: Runs) -> None:
        self._reconciler = reconciler
        self._runs = runs

    def Reconcile(self, request: pb.ReconcileRequest, context: Context) -> Messages:
        return self._reconciler.run(request)

    async def ListReconcileStates(
        self, request: pb.ListReconcileStatesRequest, context: Context
    ) -> pb.ListReconcileStatesResponse:
        if violations := STATES.violations(request):
            raise invalid_signal(violations)
        size = page_size_of(request.page_size)
        query = StatesQuery(request.ledger_id, request.partition, request.include_history)
        asked = f"ListReconcileStates {query}"
        after = maybe_key(key_of_token(asked, request.page_token))
        kept = await self._runs.states(query, after, size + 1)
        page = kept[:size]
        more = page_token(asked, key_text(page[-1].key)) if len(kept) > size else ""
        return pb.ListReconcileStatesResponse(states=[each.state for each in page], next_page_token=more)

    async def AcceptDivergence(
        self, request: pb.AcceptDivergenceRequest, context: Context
    ) -> pb.AcceptDivergenceResponse:
        if violations := ACCEPT.violations(request):
            raise invalid_signal(violations)
        counts = await self._reconciler.accept(request.ledger_id, request.reason)
        accepted = [pb.AcceptedDivergence(partition=name, record_count=count) for name, count in counts.items()]
        return pb.AcceptDivergenceResponse(accepted=accepted)


def key_text(key: StateKey) -> str:
    return "|".join(map(str, key))


def maybe_key(text: str) -> StateKey | None:
    """Where a page begins. Raises ContractError INVALID_PAGE_TOKEN: whoever sends a token may have made it."""
    if not text:
        return None
    if (match := KEY.fullmatch(text)) is None:
        raise not_a_token()
    return match[1], match[2], int(match[3])
