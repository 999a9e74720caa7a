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

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from contract.scopes import Scope

KEYS_MAX = 1000  # a hundred teams with ten keys; a file beyond it is something else
SECRET_BYTES = 32

KeyId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class ApiKey(BaseModel):
    """What is kept of one key. `rate` is in requests a second, a message of a stream being one; None sets no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    id: KeyId
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: frozenset[Scope]
    expires_at: AwareDatetime | None = None
    rate: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None = None

    def is_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class KeyFile(BaseModel):
    """A whole file of keys; ids are unique."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    keys: Annotated[tuple[ApiKey, ...], Field(max_length=KEYS_MAX)]

    @model_validator(mode="after")
    def _ids_are_unique(self) -> "KeyFile":
        if len({key.id for key in self.keys}) < len(self.keys):
            raise ValueError("two keys have the same id")
        return self


def read_keys(path: Path) -> Sequence[ApiKey]:
    """Raises OSError, or ValueError with the place of each flaw and none of the file's contents."""
    try:
        return KeyFile.model_validate_json(path.read_bytes()).keys
    except ValidationError as error:
        flaws = error.errors(include_input=False, include_context=False, include_url=False)
        places = "; ".join(f"{'.'.join(map(str, flaw['loc'])) or 'the file'}: {flaw['msg']}" for flaw in flaws[:5])
        raise ValueError(f"{path} is no file of keys: {places}") from None


def new_key(key_id: str) -> str:
    """The text that a client sends, and which nobody can read again afterwards."""
    return f"{key_id}.{secrets.token_urlsafe(SECRET_BYTES)}"


def sha256_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
