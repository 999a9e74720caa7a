"""A copy of the file as of one instant, while a server writes to it or not."""

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from riskcast_server.store.contract import StoreRefused
from riskcast_server.store.sqlite.file import refusing, uri


def back_up(source: Path, target: Path) -> None:
    """A new file that opens as a store, durable on return. StoreRefused when it is there already or cannot be made."""
    if target.exists():
        raise StoreRefused(f"{target} exists already")
    with refusing(source), closing(sqlite3.connect(uri(source, "ro"), uri=True)) as original:
        original.execute("PRAGMA user_version").fetchone()  # before anything is made: whether it is a database at all
        with refusing(target):
            _copy(original, target)


def _copy(original: sqlite3.Connection, target: Path) -> None:
    """Under another name until it is whole."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.", suffix=".partial")
    try:
        with closing(sqlite3.connect(name)) as copy:
            original.backup(copy)  # in one go: what is committed meanwhile is not in it
        os.fsync(descriptor)
        os.link(name, target)  # unlike a rename it takes no other file's place
    finally:
        os.close(descriptor)
        os.unlink(name)
    _sync_directory(target.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
