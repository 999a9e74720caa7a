"""The store in PostgreSQL: for several RiskCasts at once."""

from riskcast_server.store.postgres.schema import migrate
from riskcast_server.store.postgres.store import PostgresStore, open_postgres

__all__ = ["PostgresStore", "migrate", "open_postgres"]
