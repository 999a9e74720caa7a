"""The suite cannot lose a test in silence."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT

SKIPPING = {
    "a test": 'import pytest\n\n\ndef test_it():\n    pytest.skip("no such tool")\n',
    "a whole module": 'import pytest\n\npytest.skip("no such tool", allow_module_level=True)\n',
}
PASSING = "def test_it():\n    pass\n"


def run_pytest(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    """Runs one test file under the conftest of this suite, in a folder of its own."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "conftest.py")
    (folder / "pytest.ini").write_text("[pytest]\n", "utf-8")
    (folder / "test_it.py").write_text(source, "utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("what", SKIPPING)
def test_a_run_fails_that_skips(what: str, tmp_path: Path) -> None:
    result = run_pytest(tmp_path, SKIPPING[what])
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "no such tool" in result.stdout


def test_a_run_passes_that_skips_nothing(tmp_path: Path) -> None:
    assert run_pytest(tmp_path, PASSING).returncode == pytest.ExitCode.OK
