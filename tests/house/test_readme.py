"""The tables of the README and of the settings say what the code says."""

import re
from pathlib import Path

from omen_server.settings import OmenSettings
from riskcast_server.settings import RiskcastSettings
from tests.house.tree import ROOT, python_files

README = (ROOT / "README.md").read_text("utf-8")
SETTINGS = (ROOT / "docs" / "settings.md").read_text("utf-8")
NOT_IMPLEMENTED = re.compile(r'not_implemented\(f?"([A-Za-z_]+)"')


def table_after(sentence: str, document: str = README) -> list[list[str]]:
    """The cells of the rows of the first table after a sentence, without its heading."""
    rest = document.partition(sentence)[2]
    assert rest, f"it does not say: {sentence}"
    rows = re.search(r"(?:^\|.*\|\n)+", rest, re.MULTILINE)
    assert rows
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[0].splitlines()[2:]]


def test_every_setting_is_listed_once_with_its_default() -> None:
    rows = [*table_after("# Settings", SETTINGS), *table_after("Both servers have these", SETTINGS)]
    listed = [(name, row[1].strip("`")) for row in rows for name in re.findall(r"`([A-Z_]+)`", row[0])]
    declared = [
        (f"{kind.model_config['env_prefix']}{name.upper()}", shown(field.default))
        for kind in (OmenSettings, RiskcastSettings)
        for name, field in kind.model_fields.items()
    ]
    assert sorted(listed) == sorted(declared)


def shown(default: object) -> str:
    return "" if default in ((), None) else str(default)


def test_every_capability_that_is_not_there_yet_is_listed_and_no_other() -> None:
    listed = {name for row in table_after("Not there yet") for name in re.findall(r"[A-Za-z_]+", row[1])}
    refused = {
        name
        for path in python_files("omen_server", "riskcast_server")
        for name in NOT_IMPLEMENTED.findall(path.read_text("utf-8"))
    }
    assert refused
    assert refused <= listed
    assert listed - refused <= {"verify_content", "and", "cursor", "of", "Reconcile"}  # fields of a request


def test_every_place_of_the_path_of_a_signal_exists() -> None:
    section = README.partition("Eight places, in this order:")[2].partition("\n\n")[2].partition("\n\n")[0]
    named = re.findall(r"^\d\. `([^`]+)`", section, re.MULTILINE)
    assert len(named) == 8
    assert [name for name in named if not Path(ROOT / name).exists()] == []
