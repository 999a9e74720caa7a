"""`omen --version`."""

from importlib.metadata import version

from contract.versions import CONTRACT_VERSION, SCHEMA_VERSION
from ledger.format import FORMAT_VERSION
from omen_server.domain import RULESET_VERSION


def versions() -> str:
    """All there are, in one line."""
    return (
        f"omen-riskcast {version('omen-riskcast')}, contract {CONTRACT_VERSION}, ledger format {FORMAT_VERSION}, "
        f"ruleset {RULESET_VERSION}, schema {SCHEMA_VERSION}"
    )
