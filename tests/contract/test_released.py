"""The released contract changes only together with CHANGELOG.md, and `buf breaking` guards it.

`make check` compares the .proto files with tests/contract/released.binpb; here is shown that it would notice.
"""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from contract.versions import CONTRACT_VERSION
from tests.contract.image import BUF, ROOT, files

RELEASED = ROOT / "tests" / "contract" / "released.binpb"
ENTRY = re.compile(r"^- (\d+\.\d+\.\d+): .*image `sha256:([0-9a-f]{64})`", re.MULTILINE)

BREAKS = {
    "a method is gone": ("riskcast/v1/signal_service.proto", r"  rpc CountSignals\(.*?\n  }\n", ""),
    "a field is gone": ("omen/v1/signal.proto", r"  string title = 1;\n", ""),
    "a field has another number": ("omen/v1/signal.proto", r"string title = 1;", "string title = 999;"),
    "a field has another type": ("omen/v1/signal.proto", r"double probability = 6;", "string probability = 6;"),
    "a field has another name": ("omen/v1/signal.proto", r"string title = 1;", "string headline = 1;"),
    "an enum value is gone": ("omen/v1/signal.proto", r"  SIGNAL_TYPE_LABOR = 9;\n", ""),
    "a method streams": ("omen/v1/signal_service.proto", r"returns \(EmitResponse\)", "returns (stream EmitResponse)"),
    "a package option is gone": ("omen/v1/signal.proto", r"option java_package.*?;\n", ""),
}


def breaking(protos: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BUF, "breaking", "--against", RELEASED],
        cwd=protos,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    """A copy of the .proto files to break."""
    for file in files():
        (tmp_path / file.name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "protos" / file.name, tmp_path / file.name)
    (tmp_path / "buf.yaml").write_text("version: v2\nbreaking:\n  use:\n    - FILE\n", "utf-8")
    return tmp_path


def test_the_changelog_records_the_released_image_beside_the_version_of_the_contract() -> None:
    entries = ENTRY.findall((ROOT / "CHANGELOG.md").read_text("utf-8"))
    digest = hashlib.sha256(RELEASED.read_bytes()).hexdigest()
    expected = f"- {CONTRACT_VERSION}: (what changed); image `sha256:{digest}`"
    assert entries[:1] == [(CONTRACT_VERSION, digest)], f"CHANGELOG.md, topmost under Contract: {expected}"


def test_the_files_of_today_break_nothing_that_was_released(protos: Path) -> None:
    found = breaking(protos)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize("what", BREAKS)
def test_a_break_is_noticed(what: str, protos: Path) -> None:
    name, before, after = BREAKS[what]
    text, count = re.subn(before, after, (protos / name).read_text("utf-8"), count=1, flags=re.DOTALL)
    assert count == 1
    (protos / name).write_text(text, "utf-8")
    found = breaking(protos)
    assert found.returncode == 100, found.stdout + found.stderr
    assert name in found.stdout


def test_the_check_runs_with_the_strictest_category() -> None:
    assert re.search(r"^breaking:\n  use:\n    - FILE\b", (ROOT / "buf.yaml").read_text("utf-8"), re.MULTILINE)
