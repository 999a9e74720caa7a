"""Secrets that are easy to find again, and the files that hold them."""

from dataclasses import dataclass
from pathlib import Path

from tests.hostile.victims import key_file, private

CANARY = "kanarienvogel"


@dataclass(frozen=True)
class Secrets:
    """Each is a canary. Nothing else is in their directory."""

    directory: Path

    def key(self, name: str) -> str:
        """As a client sends it."""
        return f"{name}.{CANARY}-0123456789012345678901234567"

    def file(self, name: str, text: str) -> str:
        return str(private(self.directory / name, text))

    def key_file(self, name: str) -> str:
        return self.file(f"{name}.key", self.key(name))

    def keys_file(self, server: str, *clients: str) -> str:
        """Who may call a server; the keys themselves are not in it."""
        return str(key_file(self.directory / f"{server}.keys", *map(self.key, clients)))
