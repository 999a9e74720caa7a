"""A file of keys as a test wants it, and what clients send of it."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from contract.scopes import Scope
from serving.access.editing import edit_keys
from serving.access.keys import ApiKey, new_key, sha256_of

HEADER = "x-api-key"


@dataclass
class Keyring:
    """The file at `path`, and the texts of its keys by their ids."""

    path: Path
    texts: dict[str, str] = field(default_factory=dict)

    def add(
        self, key_id: str, *scopes: Scope, expires_at: datetime | None = None, rate: float | None = None
    ) -> "Keyring":
        """Adds a key, or replaces it and keeps its text."""
        text = self.texts.setdefault(key_id, new_key(key_id))
        key = ApiKey(id=key_id, sha256=sha256_of(text), scopes=frozenset(scopes), expires_at=expires_at, rate=rate)
        edit_keys(self.path, lambda keys: [*(each for each in keys if each.id != key_id), key])
        return self

    def revoke(self, key_id: str) -> None:
        edit_keys(self.path, lambda keys: [each for each in keys if each.id != key_id])

    def sent(self, key_id: str) -> tuple[tuple[str, str], ...]:
        """Metadata of a call with this key."""
        return ((HEADER, self.texts[key_id]),)
