"""Who is let in: the key of a call, what it is allowed, and whether it calls too often.

A call is judged by its headers alone, before anything of its request is read.
"""

import hmac
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from google.rpc.error_details_pb2 import QuotaFailure

from contract.errors import ContractError, Reason
from contract.scopes import Scope
from serving.access.keys import ApiKey, sha256_of
from serving.access.rate import Bucket
from serving.security import KEY_HEADER

HEALTH = "/grpc.health.v1.Health/"
# Any key will do: what it tells is public, the load it makes is not.
REFLECTION = ("/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/")

NO_METHOD = ""  # what a client calls and nobody mounted: whoever has a key may learn that it is not there
NO_KEY = "0" * 64  # the hash of nothing: an unknown id is compared too, and takes as long

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Guest:
    """A call that was let in. Without keys anybody is, and `key` is None."""

    key: ApiKey | None
    maybe_bucket: Bucket | None

    @property
    def key_id(self) -> str:
        return self.key.id if self.key else ""


NOBODY = Guest(None, None)


class Gate:
    """Lets in whom the keys allow; without keys, everybody.

    `keys` is asked for at every sweep, so that what it says may change. A method that `scopes` does not name is open to
    no key.
    """

    def __init__(
        self,
        keys: Callable[[], Sequence[ApiKey]] | None,
        scopes: Mapping[str, Scope],
        *,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._scopes = scopes
        self._utc_now = utc_now
        self._monotonic = monotonic
        self._seen: Sequence[ApiKey] = ()
        self._by_id: dict[str, Guest] = {}
        self.refresh()

    def refresh(self) -> None:
        """Takes over what the keys say now; a key goes on with the tokens it has."""
        if self._keys is not None and (keys := self._keys()) is not self._seen:
            self._seen = keys
            self._by_id = {key.id: self._guest(key) for key in keys}

    def identify(self, method: str, metadata: Metadata) -> Guest:
        """Who calls. Whatever is wrong with a key, the answer is the same and takes as long: BAD_CREDENTIALS."""
        if self._keys is None or method.startswith(HEALTH):
            return NOBODY
        sent = [value for name, value in metadata if name == KEY_HEADER]
        key = sent[0] if len(sent) == 1 and isinstance(sent[0], str) else ""
        guest = self._by_id.get(key.partition(".")[0], NOBODY)
        expected = guest.key.sha256 if guest.key else NO_KEY
        if not hmac.compare_digest(sha256_of(key), expected) or self._is_expired(guest):
            raise bad_credentials()
        return guest

    def allow(self, guest: Guest, method: str) -> None:
        """Whether a guest may make this call, now. Raises ContractError: SCOPE_MISSING, RATE_LIMITED."""
        if guest.key is None:
            return
        self._check_scope(guest.key, method)
        if guest.maybe_bucket is not None and (wait_s := guest.maybe_bucket.take()):
            raise rate_limited(guest.key, wait_s)

    def check_again(self, guest: Guest, method: str) -> None:
        """For a call that goes on. Raises ContractError: BAD_CREDENTIALS, SCOPE_MISSING."""
        if guest.key is None:
            return
        now = self._by_id.get(guest.key.id, NOBODY)
        if now.key is None or now.key.sha256 != guest.key.sha256 or self._is_expired(now):
            raise bad_credentials()
        self._check_scope(now.key, method)

    def _guest(self, key: ApiKey) -> Guest:
        if key.rate is None:
            return Guest(key, None)
        bucket = self._by_id.get(key.id, NOBODY).maybe_bucket or Bucket(key.rate, self._monotonic)
        bucket.change_to(key.rate)  # for its open streams too, which hold the same one
        return Guest(key, bucket)

    def _is_expired(self, guest: Guest) -> bool:
        return guest.key is None or guest.key.is_expired(self._utc_now())

    def _check_scope(self, key: ApiKey, method: str) -> None:
        if method == NO_METHOD or method.startswith(REFLECTION):
            return
        scope = self._scopes.get(method)
        if scope not in key.scopes:
            raise scope_missing(scope)


def bad_credentials() -> ContractError:
    return ContractError(Reason.BAD_CREDENTIALS, "the call needs a valid key in x-api-key")


def scope_missing(scope: Scope | None) -> ContractError:
    if scope is None:
        return ContractError(Reason.SCOPE_MISSING, "this method is open to no key")
    return ContractError(Reason.SCOPE_MISSING, f"the key lacks the scope {scope}", metadata={"scope": scope})


def rate_limited(key: ApiKey, wait_s: float) -> ContractError:
    description = f"at most {key.rate:g} requests a second"
    violation = QuotaFailure.Violation(subject=f"key:{key.id}", description=description)
    return ContractError(
        Reason.RATE_LIMITED,
        "the key calls too often",
        retry_delay_s=math.ceil(wait_s * 1000) / 1000,  # rounded down, who waits so long would come too early
        details=[QuotaFailure(violations=[violation])],
    )
