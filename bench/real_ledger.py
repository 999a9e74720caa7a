"""A real ledger of many signals, the OMEN that serves it, and the rows that RiskCast makes of them."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc

import serving
from bench.events import Events, ids_of
from bench.feed import wire
from bench.ledger_append import IN_FLIGHT_TO_FILL, Appender
from bench.processes import server
from omen.v1.signal_service_pb2 import GetSignalRequest
from omen.v1.signal_service_pb2_grpc import SignalServiceStub
from riskcast_server.settlement import Position, Row

INDEX_TIMEOUT_S = 1800.0  # 10 million take minutes
CALL_TIMEOUT_S = 10.0


class RealLedger:
    """Of one partition, today's, which is open. The record at `number`, from 0, is the event of that number."""

    def __init__(self, directory: Path, count: int) -> None:
        self.directory = directory
        self.count = count
        self.events = Events(datetime.now(UTC))
        appender = Appender(directory, IN_FLIGHT_TO_FILL)
        with appender.ledger as ledger:
            appender.append(map(self.events.encoded, range(count)), self.events.emitted_at)
            self.ledger_id = ledger.ledger_id
            (self._partition,) = ledger.partitions()

    @property
    def message_bytes(self) -> int:
        """Of one record as OMEN sends it."""
        return self.events.record(0, wire(next(self._positions()))).ByteSize()

    def rows(self, numbers: Iterable[int]) -> Iterator[Row]:
        """What RiskCast stores of the first records, for `numbers` from 0 on without a gap."""
        ingested_at = time.time_ns() // 1000
        for number, at in zip(numbers, self._positions(), strict=False):
            yield Row(self.events.candidate(number, at), ingested_at)

    def spread_ids(self, count: int) -> list[str]:
        """The signal_ids of so many records, evenly spread."""
        return [ids_of(number * self.count // count).signal_id for number in range(count)]

    def _positions(self) -> Iterator[Position]:
        for segment in self._partition.segments:
            for index in range(1, segment.record_count + 1):
                sequence = segment.ordinal << 32 | index
                yield Position(self.ledger_id, segment.partition, segment.segment_id, sequence)


@contextmanager
def omen(ledger: RealLedger) -> Iterator[str]:
    """The target of an OMEN on that ledger. It delivers nothing: nobody is there."""
    with server(
        ledger.directory.with_suffix(".port"),
        "omen_server",
        OMEN_LISTEN="127.0.0.1:0",
        OMEN_LEDGER_DIR=str(ledger.directory),
        OMEN_RISKCAST_TARGET="127.0.0.1:1",
    ) as target:
        yield target


async def indexed(target: str, ledger: RealLedger) -> None:
    """Returns once OMEN has indexed the last record of the ledger, and so is at rest."""
    last = GetSignalRequest(signal_id=ids_of(ledger.count - 1).signal_id)
    deadline = time.monotonic() + INDEX_TIMEOUT_S
    async with serving.connected(target) as channel:
        signals = SignalServiceStub(channel)
        while True:
            try:
                await signals.GetSignal(last, timeout=CALL_TIMEOUT_S)
                return
            except grpc.aio.AioRpcError as error:  # it waits for its index before it says that it is behind
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                    raise
