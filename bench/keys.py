"""One key that may do everything, as a server and as a client are given it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from contract.scopes import Scope
from serving.access.keys import new_key, sha256_of
from serving.security import KEY_HEADER, ClientSecurity


@dataclass(frozen=True, slots=True)
class Keys:
    """`accepted_file` says whom to let in, `sent_file` holds what is sent."""

    accepted_file: Path
    sent_file: Path
    metadata: tuple[tuple[str, str], ...]

    @classmethod
    def within(cls, folder: Path) -> Self:
        key = new_key("bench")
        accepted_file, sent_file = folder / "keys.json", folder / "key"
        entry = {"id": "bench", "sha256": sha256_of(key), "scopes": list(Scope)}
        for path, text in ((accepted_file, json.dumps({"keys": [entry]})), (sent_file, key)):
            path.touch(0o600)
            path.write_text(text)
        return cls(accepted_file, sent_file, ((KEY_HEADER, key),))

    @property
    def security(self) -> ClientSecurity:
        return ClientSecurity(self.sent_file)
