"""The commands of docs/certificates.md do what it says, in a folder of their own."""

import re
import stat
from pathlib import Path

from tests.ledger.modes import exposed
from tests.omen_server.running import closed_port
from tests.system.processes import ROOT
from tests.system.test_readme import bash, until_up

DOCUMENT = (ROOT / "docs" / "certificates.md").read_text("utf-8")


def block_after(sentence: str) -> str:
    """The first indented block after a sentence, as a shell script."""
    rest = DOCUMENT.partition(sentence)[2]
    found = re.search(r"(?:^    .*\n)+", rest, re.MULTILINE)
    assert found, f"the document has no commands after: {sentence}"
    return "".join(line[4:] for line in found[0].splitlines(keepends=True))


def test_both_servers_come_up_with_certificates_on_both_sides_and_one_is_replaced(tmp_path: Path) -> None:
    omen, riskcast, probes = (f"127.0.0.1:{closed_port()}" for _ in range(3))
    settings = {"OMEN_LISTEN": omen, "RISKCAST_LISTEN": riskcast, "OMEN_RISKCAST_TARGET": riskcast}
    sentences = (
        "one for whoever runs commands",
        "shows its own when it calls the other",
        "Nothing is restarted",
        "beside the running servers or without them",
    )
    script = "".join(map(block_after, sentences)).replace("127.0.0.1:8051", probes)
    code, output = bash(f"umask 022\n{until_up(script)}\nkill %1 %2\nwait\n", tmp_path, **settings)
    assert code == 0, output
    # Nothing says which of the two servers is up first.
    assert len(re.findall(r" (?:DELIVERED|LEDGER_ONLY) ", output)) == 38
    assert len(re.findall(r"COMPLETED +38 ", output)) == 2
    assert len(re.findall(r'"event":"file_reloaded"', output)) == 2  # as a server, and as a client
    assert (output.count("certs/ca.pem is a new authority"), "Traceback" in output) == (1, False)
    assert exposed(tmp_path / "certs") == {}
    assert exposed(tmp_path / "omen-ledger") == {}
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("riskcast.db*")}
    assert "riskcast.db" in modes
    assert set(modes.values()) == {0o600}
