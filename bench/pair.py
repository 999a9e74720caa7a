"""OMEN and RiskCast as they are run in earnest: keys, metrics, JSON lines into a file, each a process of its own.

RiskCast stores in SQLite. Whatever is below the folder is theirs.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.keys import Keys
from bench.processes import Served, served
from serving.security import ClientSecurity

ANY_PORT = "127.0.0.1:0"


class Pair:
    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._keys = Keys.within(folder)
        self._running = ExitStack()
        self._riskcast_running = ExitStack()
        self.riskcast = self._start_riskcast(ANY_PORT)
        self.omen = self._running.enter_context(
            served(
                folder / "omen-port",
                "omen_server",
                OMEN_LISTEN=ANY_PORT,
                OMEN_LEDGER_DIR=str(folder / "ledger"),
                OMEN_RISKCAST_TARGET=self.riskcast.target,
                OMEN_RISKCAST_API_KEY_FILE=str(self._keys.sent_file),
                OMEN_API_KEYS_FILE=str(self._keys.accepted_file),
                OMEN_METRICS_LISTEN=ANY_PORT,
            )
        )

    @property
    def security(self) -> ClientSecurity:
        return self._keys.security

    def stop(self) -> None:
        self._running.close()
        self._riskcast_running.close()

    @contextmanager
    def without_riskcast(self) -> Iterator[None]:
        """It comes back on the same port, with what it had stored, and serves when this is left."""
        self._riskcast_running.close()
        yield
        self.riskcast = self._start_riskcast(self.riskcast.target)

    def _start_riskcast(self, listen: str) -> Served:
        return self._riskcast_running.enter_context(
            served(
                self._folder / "riskcast-port",
                "riskcast_server",
                RISKCAST_LISTEN=listen,
                RISKCAST_DATABASE_URL=f"sqlite:///{self._folder / 'riskcast.db'}",
                RISKCAST_API_KEYS_FILE=str(self._keys.accepted_file),
                RISKCAST_METRICS_LISTEN=ANY_PORT,
            )
        )


@contextmanager
def pair(folder: Path) -> Iterator[Pair]:
    """On fresh files."""
    both = Pair(folder)
    try:
        yield both
    finally:
        both.stop()
