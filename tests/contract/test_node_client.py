"""A client in another language, made of the .proto files alone, reads a rich error of the real server.

Its packages come from the npm registry into pytest's cache, once; nothing of them is committed.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.identity import ack_id
from tests.contract.image import ROOT

CLIENT = Path(__file__).parent / "node"
INSTALL_TIMEOUT_S = 60

pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")), reason="node or npm is not installed"
)


@pytest.fixture
def riskcast(tmp_path: Path) -> Iterator[str]:
    """The address of a RiskCast of its own, on an empty store."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "protos")),
        "RISKCAST_LISTEN": "127.0.0.1:0",
        "RISKCAST_DATABASE_URL": f"sqlite:///{tmp_path / 'riskcast.db'}",
    }
    command = [sys.executable, "-m", "riskcast_server", "serve"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield f"127.0.0.1:{port_of(server)}"
        finally:
            server.terminate()


def port_of(server: subprocess.Popen[str]) -> int:
    """Waits for the line that the server logs once it serves."""
    assert server.stderr
    seen = []
    for line in server.stderr:
        seen.append(line)
        if (told := json.loads(line))["event"] == "serving":
            return int(told["port"])
    raise AssertionError(f"riskcast ended before it served: {seen}")


@pytest.fixture
def node_client(pytestconfig: pytest.Config) -> Path:
    """A folder with the client and its packages, installed anew when package.json changes."""
    packages = (CLIENT / "package.json").read_bytes()
    folder = pytestconfig.cache.mkdir(f"node-client-{hashlib.sha256(packages).hexdigest()[:16]}")
    for name in ("package.json", "client.js", "rpc_status.proto"):
        shutil.copy(CLIENT / name, folder / name)
    if not (folder / "node_modules" / "@grpc" / "grpc-js" / "package.json").exists():
        options = [
            "--fetch-retries=1",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--no-package-lock",
            "--prefer-offline",
        ]
        if not installed(["npm", "install", *options], folder):
            pytest.skip("the packages of the Node client cannot be had")
    return folder


def installed(command: list[str], folder: Path) -> bool:
    """Whether npm did it; without a registry it fails or waits for one."""
    try:
        return subprocess.run(command, cwd=folder, check=False, timeout=INSTALL_TIMEOUT_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def test_a_node_client_reads_the_original_acknowledgement_of_a_repeat(riskcast: str, node_client: Path) -> None:
    command = ["node", "client.js", riskcast, str(ROOT / "protos")]
    done = subprocess.run(command, cwd=node_client, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    expected = ack_id(said["sent"]["signal_id"], said["sent"]["input_event_hash"])
    assert said["stored"] == expected
    assert said["repeat"] == {
        "code": "ALREADY_EXISTS",
        "reason": "DUPLICATE_SIGNAL",
        "domain": "riskcast.v1",
        "ack_id": expected,
        "content_matches": True,
        "trailer": expected,
    }
