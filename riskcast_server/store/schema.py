"""Schema versions: the numbered .sql scripts of a store. The n-th brings the schema from version n - 1 to n."""

from importlib import resources
from importlib.resources.abc import Traversable

from riskcast_server.store.contract import StoreRefused


def migrations(package: str) -> list[Traversable]:
    """The numbered scripts of a store's package in order, from 0001 without a gap."""
    folder = resources.files(package) / "migrations"
    scripts = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    if [int(script.name[:4]) for script in scripts] != list(range(1, len(scripts) + 1)):
        raise StoreRefused("the schema scripts of this installation are not numbered without a gap")
    return scripts


def newer_schema(place: object, version: int, known: int) -> StoreRefused:
    return StoreRefused(f"{place} has schema version {version}; this program knows {known}: upgrade it")
