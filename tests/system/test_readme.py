"""The README's commands do what it says, in a folder of their own."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.omen_server.running import closed_port
from tests.system.processes import ROOT, environment

README = (ROOT / "README.md").read_text("utf-8")


# The addresses that the README prints for a secure run.
PRINTED = [
    *("127.0.0.1:50051", "127.0.0.1:50052", "127.0.0.1:9464", "127.0.0.1:9465", "127.0.0.1:8051", "127.0.0.1:8052"),
]

SERVING = ".venv/bin/omen serve 2>omen.log &\n"
UP = "until grep -q '\"serving\"' omen.log && grep -q '\"serving\"' riskcast.log; do sleep 0.05; done\n"

SCRAPE = """
import sys, urllib.request
for target in sys.argv[1:]:
    print(urllib.request.urlopen(f"http://{target}/metrics", timeout=10).read().decode())
"""


def block_after(sentence: str) -> str:
    """The first indented block after a sentence, as a shell script."""
    rest = README.partition(sentence)[2]
    found = re.search(r"(?:^    .*\n)+", rest, re.MULTILINE)
    assert found, f"the README has no commands after: {sentence}"
    return "".join(line[4:] for line in found[0].splitlines(keepends=True))


def until_up(script: str) -> str:
    """The script with a wait behind the start of OMEN, which comes last: people type more slowly than servers start."""
    assert script.count(SERVING) == 1
    return script.replace(SERVING, SERVING + UP)


def bash(script: str, folder: Path, **settings: str) -> tuple[int, str]:
    """Exit code and output of a script where `.venv` and the sources are, on the ports of the settings."""
    for name, target in ((".venv", Path(sys.prefix)), ("omen_server", ROOT / "omen_server")):
        if not (folder / name).exists():
            (folder / name).symlink_to(target)
    for name, printed in (("OMEN_LISTEN", "127.0.0.1:50051"), ("RISKCAST_LISTEN", "127.0.0.1:50052")):
        script = script.replace(printed, settings.get(name, printed))
    output = folder / "output.txt"
    with output.open("wb") as said:
        shell = subprocess.Popen(
            ["bash", "-e", "-c", script],
            cwd=folder,
            env=environment(settings),
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            code = shell.wait(timeout=100)
        finally:
            with suppress(ProcessLookupError):  # nobody is left of it, unless it failed
                os.killpg(shell.pid, signal.SIGKILL)
    return code, output.read_text("utf-8")


def test_both_servers_come_up_securely_serve_whoever_has_a_key_and_tell_of_themselves(tmp_path: Path) -> None:
    names = {printed: f"127.0.0.1:{closed_port()}" for printed in PRINTED}
    omen, riskcast, omen_metrics, riskcast_metrics, *_ = names.values()
    script = block_after("## Run it securely")
    for printed, free in names.items():
        script = script.replace(printed, free)
    asked = f".venv/bin/python -c '{SCRAPE}' {omen_metrics} {riskcast_metrics}"
    script = script.replace("kill %1 %2", f"{asked}\nkill %1 %2\nwait")
    settings = {"OMEN_LISTEN": omen, "RISKCAST_LISTEN": riskcast, "OMEN_RISKCAST_TARGET": riskcast}
    code, output = bash(until_up(script), tmp_path, **settings)
    assert code == 0, output
    assert len(re.findall(r" (?:DELIVERED|LEDGER_ONLY) ", output)) == 38
    assert re.search(r"COMPLETED +38 ", output)
    assert 'grpc_server_started_total{grpc_method="IngestStream"' in output
    assert len(re.findall(r"address +ok +127\.0\.0\.1:\d+ is in use by the running server", output)) == 6
    assert re.search(r"store +ok +in use by a RiskCast: left alone", output)
    for name in ("omen.log", "riskcast.log"):
        lines = [json.loads(line) for line in (tmp_path / name).read_text("utf-8").splitlines()]
        assert [line for line in lines if line["level"] in ("error", "critical")] == []
        keys = {line["key_id"] for line in lines if line["event"] == "call" and line["code"] == "OK"}
        assert "operator-1" in keys


def test_an_id_is_verified_with_sha256sum_alone(tmp_path: Path) -> None:
    assert bash(block_after("from three strings that the event itself carries:"), tmp_path) == (
        0,
        "886183d04566fffd513efd1d9ea8a3bee7aaa550c12c438f0dd629f6f3f8f09d  -\n",
    )
    assert bash(block_after("which the\nevent carries too:"), tmp_path) == (
        0,
        "62806ca4c4f863f8587529da2b87ed4cdf8caa3872c8e2b889487b8e7c394c14  -\n",
    )


def test_both_servers_come_up_take_the_demos_observations_and_agree(tmp_path: Path) -> None:
    omen, riskcast = (f"127.0.0.1:{closed_port()}" for _ in range(2))
    settings = {"OMEN_LISTEN": omen, "RISKCAST_LISTEN": riskcast, "OMEN_RISKCAST_TARGET": riskcast}
    stopping = "kill %1 %2"
    script = block_after("## Run it").replace(stopping, "") + block_after("For a signal of your own") + stopping
    code, output = bash(f"{until_up(script)}\nwait\n", tmp_path, **settings)
    assert code == 0, output
    # Nothing says which of the two servers is up first.
    assert len(re.findall(r" (?:DELIVERED|LEDGER_ONLY) ", output)) == 38
    assert re.search(r"COMPLETED +38 ", output)
    hashed = re.findall(r"^sha256:([0-9a-f]{64})$", output, re.MULTILINE)
    assert hashed == re.findall(r"^([0-9a-f]{64}) +canonical.json$", output, re.MULTILINE)
    assert len(hashed) == 1
