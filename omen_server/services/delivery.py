"""omen.v1.DeliveryService."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import grpc
import structlog

from contract.checks import placed, text
from contract.errors import invalid_signal, timestamp
from contract.limits import OPERATOR_REASON_CHARS_MAX
from contract.pages import page_size_of
from contract.queries import check_dead_letters, check_drop, check_redrive
from ledger.times import bounded_moment_of
from omen.v1 import delivery_service_pb2 as pb
from omen.v1 import delivery_service_pb2_grpc as pb_grpc
from omen_server.dead_letters import DeadLetters, LetterFilter
from omen_server.delivery import Delivery
from omen_server.journal import Journal
from omen_server.pause import PauseSwitch
from omen_server.reading.listed_letters import listed_letters, number_of_token, token_of_number

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

log = structlog.get_logger(__name__)

CHECK_REASON = text(OPERATOR_REASON_CHARS_MAX, least=1)


class DeliveryService(pb_grpc.DeliveryServiceServicer):
    def __init__(
        self,
        journal: Journal,
        delivery: Delivery,
        pause: PauseSwitch,
        letters: DeadLetters,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._delivery = delivery
        self._pause = pause
        self._letters = letters
        self._journal = journal
        self._now = now

    async def GetDeliveryState(
        self, request: pb.GetDeliveryStateRequest, context: Context
    ) -> pb.GetDeliveryStateResponse:
        delivery, pause = self._delivery, self._pause.current
        held = delivery.phase == pb.DELIVERY_PHASE_HELD
        response = pb.GetDeliveryStateResponse(
            phase=pb.DELIVERY_PHASE_PAUSED if pause else delivery.phase,
            reason=pause.reason if pause else delivery.last_error if held else "",
            breaker=delivery.breaker_state,
            backlog_record_count=delivery.backlog_record_count,
            backlog_bytes=delivery.backlog_bytes,
            last_error=delivery.last_error,
        )
        written_at = await self._journal.read(lambda ledger: delivery.oldest_written_at(ledger.reader()))
        if written_at is not None:
            age = max(self._now() - bounded_moment_of(written_at), timedelta(0))
            response.oldest_unsettled_age.FromTimedelta(age)
        if delivery.last_success_at:
            response.last_success_at.CopyFrom(timestamp(delivery.last_success_at))
        if delivery.last_error_at:
            response.last_error_at.CopyFrom(timestamp(delivery.last_error_at))
        if pause:
            response.paused_at.CopyFrom(timestamp(pause.paused_at))
        return response

    async def PauseDelivery(self, request: pb.PauseDeliveryRequest, context: Context) -> pb.PauseDeliveryResponse:
        reason = request.reason.strip()
        if violations := placed("reason", CHECK_REASON(reason) or []):
            raise invalid_signal(violations)
        pause = await self._pause.pause(reason, self._now())
        log.warning("delivery_paused_by_operator", reason=reason)
        response = pb.PauseDeliveryResponse()
        response.paused_at.CopyFrom(timestamp(pause.paused_at))
        return response

    async def ResumeDelivery(self, request: pb.ResumeDeliveryRequest, context: Context) -> pb.ResumeDeliveryResponse:
        was_paused = await self._pause.resume()
        if was_paused:
            log.info("delivery_resumed")
        return pb.ResumeDeliveryResponse(was_paused=was_paused)

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Context) -> pb.ListDeadLettersResponse:
        check_dead_letters(request)
        picked = self._picked(request.filter)
        size = page_size_of(request.page_size)
        after = number_of_token(picked, request.page_token)
        listed, last = await listed_letters(self._letters, self._journal, picked, after, size)
        return pb.ListDeadLettersResponse(
            dead_letters=listed, next_page_token=token_of_number(picked, last) if last else ""
        )

    async def RedriveDeadLetters(
        self, request: pb.RedriveDeadLettersRequest, context: Context
    ) -> pb.RedriveDeadLettersResponse:
        check_redrive(request)
        count = await self._letters.redrive(self._picked(request.filter), self._now())
        return pb.RedriveDeadLettersResponse(redriven_count=count)

    async def DropDeadLetters(self, request: pb.DropDeadLettersRequest, context: Context) -> pb.DropDeadLettersResponse:
        request.reason = request.reason.strip()
        check_drop(request)
        count = await self._letters.drop(self._picked(request.filter), request.reason, self._now())
        return pb.DropDeadLettersResponse(dropped_count=count)

    def _picked(self, asked: pb.DeadLetterFilter) -> LetterFilter:
        """Positions of another ledger are those of no record here."""
        mine = ("", self._journal.ledger_id)
        positions = [(at.partition, at.sequence, at.segment_id) for at in asked.positions if at.ledger_id in mine]
        return LetterFilter(tuple(positions) if asked.positions else None, asked.reason, asked.partition)
