"""RiskCast's memory. `open_store` picks the technology by the URL; `contract` says what each of them does."""

from contextlib import AbstractAsyncContextManager

from riskcast_server.store.contract import (
    Failure,
    Kept,
    Lease,
    PartitionCount,
    Runs,
    SegmentCoverage,
    SignalQuery,
    StateKey,
    StatesQuery,
    Store,
    StoreRefused,
    StoreUnknown,
)
from riskcast_server.store.sqlite import open_sqlite

__all__ = [
    "Failure",
    "Kept",
    "Lease",
    "PartitionCount",
    "Runs",
    "SegmentCoverage",
    "SignalQuery",
    "StateKey",
    "StatesQuery",
    "Store",
    "StoreRefused",
    "StoreUnknown",
    "open_store",
]

SCHEME = "sqlite:///"


def open_store(url: str, *, busy_timeout_s: float = 10.0) -> AbstractAsyncContextManager[Store]:
    """Opens and, where it is older than this program, brings the schema up to date; closes on leaving.

    `url` is sqlite:///relative/path or sqlite:////absolute/path: StoreUnknown for anything else, StoreRefused when it
    cannot be used safely.
    """
    if not url.startswith(SCHEME) or url == SCHEME:
        raise StoreUnknown("the database URL must be sqlite:///path")
    return open_sqlite(url.removeprefix(SCHEME), busy_timeout_s)
