"""The store in one SQLite file: zero set-up, one writing connection, readers beside it."""

from riskcast_server.store.sqlite.backup import back_up
from riskcast_server.store.sqlite.file import schema_versions
from riskcast_server.store.sqlite.store import SqliteStore, open_sqlite

__all__ = ["SqliteStore", "back_up", "open_sqlite", "schema_versions"]
