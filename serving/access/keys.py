"""API keys as they are kept: of each key its hash, what it is allowed, until when and how often.

    {"keys": [{"id": "riskcast-1", "sha256": "…64 hex digits…", "scopes": ["ledger.read"],
               "expires_at": "2027-01-01T00:00:00Z", "rate": 100}]}

A key is its id, a dot and 256 random bits, so that it is found by its id and compared once. The bits are hashed without
salt or stretching: nobody guesses them. One client may have several keys with ids of their own, which is how a key is
replaced without a gap.
"""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_serializer, model_validator

from contract.scopes import Scope
from serving.files import read_regular

KEYS_MAX = 1000  # a hundred teams with ten keys; a file beyond it is something else
FILE_BYTES_MAX = 1024 * 1024  # a kilobyte for each key, three times what the largest needs
SECRET_BYTES = 32
FLAWS_SHOWN_MAX = 5

# A call in a quarter of an hour: less is no rate but no access, and what a refused caller is told to wait stays sane.
RATE_MIN = 0.001
RATE_MAX = 1_000_000.0

KEY_ID = r"^[a-z0-9][a-z0-9_-]{0,62}$"
KeyId = Annotated[str, Field(pattern=KEY_ID)]


class ApiKey(BaseModel):
    """What is kept of one key. `rate` is in requests a second, a message of a stream being one; None sets no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    id: KeyId
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: frozenset[Scope]
    expires_at: AwareDatetime | None = None
    rate: Annotated[float, Field(ge=RATE_MIN, le=RATE_MAX, allow_inf_nan=False)] | None = None

    @field_serializer("scopes")
    def _in_order(self, scopes: frozenset[Scope]) -> list[Scope]:
        return sorted(scopes)

    def is_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class KeyFile(BaseModel):
    """A whole file of keys; ids are unique."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    keys: Annotated[tuple[ApiKey, ...], Field(max_length=KEYS_MAX)]

    @model_validator(mode="after")
    def _ids_are_unique(self) -> "KeyFile":
        if len({key.id for key in self.keys}) < len(self.keys):
            raise ValueError("two keys have the same id")
        return self


def read_keys(path: Path) -> Sequence[ApiKey]:
    """Raises OSError, or ValueError with the place of each flaw and none of the file's contents."""
    data = read_regular(path, FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"{path} is no file of keys: it is larger than {FILE_BYTES_MAX} bytes")
    try:
        return KeyFile.model_validate_json(data).keys
    except ValidationError as error:
        flaws = error.errors(include_input=False, include_context=False, include_url=False)[:FLAWS_SHOWN_MAX]
        told = "; ".join(f"{place_of(flaw['loc'])}: {flaw['msg']}" for flaw in flaws)
        raise ValueError(f"{path} is no file of keys: {told}") from None


def place_of(path: tuple[int | str, ...]) -> str:
    """Where a flaw is. A name that is not ours is the file's own text, which may be a key somebody pasted."""
    known = KeyFile.model_fields | ApiKey.model_fields
    return ".".join(str(part) if isinstance(part, int) or part in known else "?" for part in path) or "the file"


def new_key(key_id: str) -> str:
    """The text that a client sends, and which nobody can read again afterwards."""
    return f"{key_id}.{secrets.token_urlsafe(SECRET_BYTES)}"


def sha256_of(key: str) -> str:
    """Of any text that may be sent: one that no encoding knows is another key, and no error."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()
