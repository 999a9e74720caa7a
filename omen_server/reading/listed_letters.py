"""Pages of dead letters: delivery.db says what became of each record, the ledger what it holds."""

import asyncio
from collections.abc import Iterator, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from contract.pages import READ_AT_ONCE, PageBytes, key_of_token, not_a_token, page_token
from ledger import LedgerReader, Record
from omen.v1.delivery_service_pb2 import DeadLetter as LetterMessage
from omen.v1.ledger_record_pb2 import LedgerPosition, LedgerRecord
from omen.v1.signal_service_pb2 import ItemError
from omen_server.dead_letters import DeadLetter, DeadLetters, Garbled, LetterFilter
from omen_server.journal import Journal
from omen_server.reading.stored_signals import read_each
from omen_server.records import ledger_position, ledger_record

UNREADABLE = "delivery.db cannot tell any more which record it was, and what RiskCast said of it"
NUMBER_DIGITS_MAX = 18  # of a number that SQLite can compare


async def listed_letters(
    letters: DeadLetters, journal: Journal, picked: LetterFilter, after: int, size: int
) -> tuple[list[LetterMessage], int]:
    """At most `size` of them, and about 1 MiB; the number of the last one, 0 when nothing follows.

    Raises ContractError LEDGER_UNAVAILABLE.
    """
    found = await letters.page(picked, after, size + 1)
    reader = await journal.read(lambda ledger: ledger.reader())
    page = await asyncio.to_thread(_fitting, reader, journal.ledger_id, found[:size])
    return page, found[len(page) - 1].number if len(page) < len(found) else 0


def number_of_token(picked: LetterFilter, token: str) -> int:
    """The number of the last dead letter of the page before; 0 for the first page. Raises ContractError:
    INVALID_PAGE_TOKEN."""
    key = key_of_token(_named(picked), token)
    if key and not (key.isascii() and key.isdecimal() and len(key) <= NUMBER_DIGITS_MAX):
        raise not_a_token()
    return int(key or "0")


def token_of_number(picked: LetterFilter, number: int) -> str:
    return page_token(_named(picked), str(number))


def _named(picked: LetterFilter) -> str:
    return f"ListDeadLetters {picked}"


def _fitting(reader: LedgerReader, ledger_id: str, found: Sequence[DeadLetter | Garbled]) -> list[LetterMessage]:
    """As many as fit into a page. Reads files: on a thread."""
    page: list[LetterMessage] = []
    held = PageBytes()
    for message in _messages(reader, ledger_id, found):
        if not held.take(message.ByteSize()):
            break
        page.append(message)
    return page


def _messages(reader: LedgerReader, ledger_id: str, found: Sequence[DeadLetter | Garbled]) -> Iterator[LetterMessage]:
    for start in range(0, len(found), READ_AT_ONCE):
        part = found[start : start + READ_AT_ONCE]
        records = dict(read_each(reader, [letter.position for letter in part if isinstance(letter, DeadLetter)]))
        for letter in part:
            if isinstance(letter, DeadLetter):
                yield _message(letter, _record(ledger_id, letter, records[letter.position]))
            else:
                place = LedgerPosition(ledger_id=ledger_id)
                yield LetterMessage(record=LedgerRecord(position=place), rejection=ItemError(message=UNREADABLE))


def _record(ledger_id: str, letter: DeadLetter, maybe_record: Record | None) -> LedgerRecord:
    # Of a ledger that was restored from an older copy, another file may have the name.
    if maybe_record is not None and maybe_record.position == letter.position:
        return ledger_record(ledger_id, maybe_record)
    return LedgerRecord(position=ledger_position(ledger_id, letter.position))


def _message(letter: DeadLetter, record: LedgerRecord) -> LetterMessage:
    return LetterMessage(
        record=record,
        rejection=letter.rejection,
        attempt_count=letter.attempt_count,
        first_rejected_at=_stamp(letter.first_rejected_at),
        last_rejected_at=_stamp(letter.last_rejected_at),
        drop_reason=letter.drop_reason,
        dropped_at=_maybe_stamp(letter.dropped_at),
        redrive_requested_at=_maybe_stamp(letter.redrive_requested_at),
    )


def _stamp(at: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(at)
    return stamp


def _maybe_stamp(at: int | None) -> Timestamp | None:
    return None if at is None else _stamp(at)
