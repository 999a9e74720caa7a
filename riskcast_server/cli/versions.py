"""`riskcast --version`."""

from importlib.metadata import version

from contract.versions import CONTRACT_VERSION, SCHEMA_VERSION


def versions() -> str:
    """All there are, in one line."""
    return f"omen-riskcast {version('omen-riskcast')}, contract {CONTRACT_VERSION}, schema {SCHEMA_VERSION}"
