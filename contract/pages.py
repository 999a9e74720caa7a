"""Where a page ends, and page tokens: a token is good for the query it was made by, and for no other."""

import base64
import binascii
import hashlib
import json
import re

from contract.errors import ContractError, Reason, Violation, invalid_signal
from contract.limits import PAGE_BYTES_MAX, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX

READ_AT_ONCE = 64  # signals of a page: with events of 256 KiB each, 16 MiB

SignalKey = tuple[int, str]  # emitted_at in microseconds since the epoch, then signal_id: the order of every list

# No store takes a NUL or half of a surrogate pair.
_SIGNAL_KEY = re.compile(r"([0-9]{1,18})\|([^\0\ud800-\udfff]+)")
_QUERY_DIGITS = 16  # of the query's digest: enough to notice that a token came from elsewhere


def page_size_of(requested: int) -> int:
    """How many items a page may have. Raises ContractError: INVALID_SIGNAL outside of 0 to 1000."""
    if not 0 <= requested <= PAGE_SIZE_MAX:
        raise invalid_signal([Violation("page_size", f"must be from 0 to {PAGE_SIZE_MAX}")])
    return requested or PAGE_SIZE_DEFAULT


class PageBytes:
    """How much a page holds: 1 MiB together, and always a first item."""

    def __init__(self) -> None:
        self._total = 0

    def take(self, item_bytes: int) -> bool:
        """Whether there is room for one more of so many bytes."""
        is_first = not self._total
        self._total += item_bytes
        return is_first or self._total <= PAGE_BYTES_MAX


def page_token(query: str, last_key: str) -> str:
    """The token to go on after `last_key`. `query` names the RPC and every filter it was called with."""
    return base64.urlsafe_b64encode(json.dumps([_digest(query), last_key]).encode()).decode()


def key_of_token(query: str, token: str) -> str:
    """The last key of the page before, "" for the first page. Raises ContractError: INVALID_PAGE_TOKEN."""
    if not token:
        return ""
    try:
        digest, last_key = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise not_a_token() from error
    if digest != _digest(query) or not isinstance(last_key, str):
        raise not_a_token()
    return last_key


def signal_token(query: str, last: SignalKey) -> str:
    """The token to go on after the signal of that key."""
    return page_token(query, f"{last[0]}|{last[1]}")


def maybe_signal_key(query: str, token: str) -> SignalKey | None:
    """The key of the last signal of the page before, None for the first page. Raises as `key_of_token`."""
    if not token:
        return None
    if (match := _SIGNAL_KEY.fullmatch(key_of_token(query, token))) is None:
        raise not_a_token()
    return int(match[1]), match[2]


def _digest(query: str) -> str:
    return hashlib.sha256(query.encode()).hexdigest()[:_QUERY_DIGITS]


def not_a_token() -> ContractError:
    return ContractError(Reason.INVALID_PAGE_TOKEN, "the page token is not one of this query")
