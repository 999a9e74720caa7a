"""docs/security.md's commands do what it says, one after the other, in a folder of their own."""

import json
import re
from pathlib import Path

from tests.omen_server.running import closed_port
from tests.system.processes import ROOT
from tests.system.test_readme import bash, until_up

DOCUMENT = (ROOT / "docs" / "security.md").read_text("utf-8")


def commands() -> str:
    """Every indented block, as one script."""
    return "".join(line[4:] for line in re.findall(r"^    .*\n", DOCUMENT, re.MULTILINE))


def test_keys_are_made_used_replaced_and_revoked_as_the_document_says(tmp_path: Path) -> None:
    omen, riskcast = (f"127.0.0.1:{closed_port()}" for _ in range(2))
    settings = {"OMEN_LISTEN": omen, "RISKCAST_LISTEN": riskcast, "OMEN_RISKCAST_TARGET": riskcast}
    script = commands()
    code, output = bash(f"{until_up(script)}kill %1 %2\nwait\n", tmp_path, **settings)
    assert code == 0, output
    listed = [line.split()[:2] for line in output.splitlines() if re.match(r"\w+-\d ", line)]
    assert listed == [["riskcast-1", "is"], ["operator-1", "valid"], ["riskcast-2", "valid"]]
    assert "ready, and lets this OMEN deliver" in output
    keys = {path.name: path.read_text("utf-8").strip() for path in (tmp_path / "secrets").glob("*.key")}
    assert keys.keys() == {"omen.key", "riskcast.key", "operator.key"}
    logs = "".join((tmp_path / name).read_text("utf-8") for name in ("omen.log", "riskcast.log"))
    assert [key for key in keys.values() if key in output + logs] == []
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "secrets").iterdir()} == {0}
    assert json.loads((tmp_path / "secrets" / "omen-keys.json").read_text("utf-8")).keys() == {"keys"}
