"""What a database URL says, and nothing else: asyncpg would fill its gaps from PG* variables and ~/.pgpass."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from riskcast_server.store.contract import StoreUnknown

SCHEMES = ("postgresql", "postgres")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True, slots=True)
class Address:
    """`place` is for people and holds no secret; `arguments` are those of asyncpg.connect."""

    place: str
    arguments: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, url: str) -> "Address":
        """StoreUnknown, without the URL, unless it names a user, a host and a database."""
        try:
            parts = urlsplit(url)
            query = {
                name: values[-1] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()
            }
            port = parts.port or int(query.get("port", 5432))
        except ValueError:
            raise _unreadable() from None
        user, host = parts.username or query.get("user"), parts.hostname or query.get("host")
        database = parts.path.removeprefix("/") or query.get("dbname")
        ssl = query.get("sslmode", "prefer")
        if (
            parts.scheme not in SCHEMES
            or ssl not in SSL_MODES
            or not (user and host and database)
            or parts.netloc.count("@") > 1
        ):
            raise _unreadable()
        given = parts.password or query.get("password") or ""
        arguments = {
            "dsn": url,
            "password": unquote(given) if parts.password else given,  # "" is none at all: nothing else is looked up
            "port": port,
            "ssl": ssl,
        }
        return cls(f"postgresql://{host}/{unquote(database)}", arguments)


def _unreadable() -> StoreUnknown:
    return StoreUnknown("the database URL must be postgresql://user:password@host/database, special characters as %40")
