"""The lock answers what the two pyproject.toml ask for, and they ask for what the code imports."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from tests.house.tree import PRODUCT, ROOT, parsed, python_files

# What needs an extra -> the extra.
OPTIONAL = {ROOT / "serving" / "telemetry" / "spans.py": "traces"}


def project(path: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))["project"]
    return table


def distribution(requirement: str) -> str:
    """`Grpc_IO>=1; marker` names the distribution grpc-io."""
    named = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert named
    return re.sub(r"[-_.]+", "-", named[0]).lower()


def floors(requirements: list[str]) -> dict[str, tuple[int, ...]]:
    found = (re.search(r">=([\d.]+)", requirement) for requirement in requirements)
    return {
        distribution(requirement): tuple(int(part) for part in floor[1].split("."))
        for requirement, floor in zip(requirements, found, strict=True)
        if floor
    }


def lock_check(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / ".ci" / "lock.py", "check"], capture_output=True, text=True, check=False
    )


def test_a_changed_dependency_makes_the_lock_stale(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "protos/pyproject.toml", "requirements.lock", ".ci/lock.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    assert lock_check(tmp_path).returncode == 0
    changed = (tmp_path / "pyproject.toml").read_text("utf-8").replace('"filelock>=', '"filelock>=99.')
    (tmp_path / "pyproject.toml").write_text(changed, "utf-8")
    stale = lock_check(tmp_path)
    assert stale.returncode == 1
    assert "make lock" in stale.stderr


def test_the_lock_hashes_every_pin_and_names_no_index() -> None:
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    pins = re.findall(r"^[a-z0-9].*$", lock, re.MULTILINE)
    hashed = re.findall(r"^\S+==\S+ .*\\\n    --hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE)
    assert pins
    assert len(hashed) == len(pins)
    assert "://" not in lock
    assert re.findall(r"^-.*$", lock, re.MULTILINE) == []


def test_both_distributions_carry_the_same_version() -> None:
    main, protos = project(ROOT / "pyproject.toml"), project(ROOT / "protos" / "pyproject.toml")
    assert main["version"] == protos["version"]
    assert f"{protos['name']}=={protos['version']}" in main["dependencies"]


def test_the_floors_of_grpcio_and_protobuf_satisfy_the_generated_stubs() -> None:
    text = "\n".join(path.read_text("utf-8") for path in (ROOT / "protos").glob("*/v*/*_pb2*.py"))
    grpcio = {tuple(map(int, found.split("."))) for found in re.findall(r"GENERATED_VERSION = '([\d.]+)'", text)}
    protobuf = {tuple(map(int, found.split("."))) for found in re.findall(r"Protobuf Python Version: ([\d.]+)", text)}
    assert grpcio
    assert protobuf
    floor = floors(project(ROOT / "protos" / "pyproject.toml")["dependencies"])
    assert floor["grpcio"] >= max(grpcio)
    assert floor["protobuf"] >= max(protobuf)


def test_every_runtime_dependency_is_imported_and_every_import_is_declared() -> None:
    declared = {distribution(requirement) for requirement in project(ROOT / "pyproject.toml")["dependencies"]}
    imported = {name for path in shipped() if path not in OPTIONAL for name in imported_distributions(path)}
    assert {"unused": declared - imported, "undeclared": imported - declared} == {"unused": set(), "undeclared": set()}


@pytest.mark.parametrize("path", OPTIONAL, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_an_extra_brings_is_imported_by_one_file_alone_which_is_loaded_when_it_is_needed(path: Path) -> None:
    tables = project(ROOT / "pyproject.toml")
    declared = {distribution(requirement) for requirement in tables["dependencies"]}
    extra = {distribution(requirement) for requirement in tables["optional-dependencies"][OPTIONAL[path]]}
    assert imported_distributions(path) - declared == extra
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    importing = [node for each in shipped() for node in parsed(each).body if name in ast.unparse(node).split()]
    assert [node for node in importing if isinstance(node, ast.Import | ast.ImportFrom)] == []


def shipped() -> list[Path]:
    return [path for path in python_files(*PRODUCT) if "bench" not in path.relative_to(ROOT).parts]


def imported_distributions(path: Path) -> set[str]:
    """Distributions that provide what a file imports; where several share the first name, the second decides."""
    shared = {
        "google.protobuf": "protobuf",
        "google.rpc": "googleapis-common-protos",
        "opentelemetry.context": "opentelemetry-sdk",  # of the API, which comes with the SDK in the same version
        "opentelemetry.exporter": "opentelemetry-exporter-otlp-proto-http",
        "opentelemetry.sdk": "opentelemetry-sdk",
        "opentelemetry.trace": "opentelemetry-sdk",
    }
    own = {"omen": "omen-riskcast-protos", "riskcast": "omen-riskcast-protos", "grpc": "grpcio"}
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
        for name in names:
            top = name.partition(".")[0]
            known = shared.get(".".join(name.split(".")[:2])) or own.get(top)
            found |= {known} if known else {distribution(one) for one in providers().get(top, [])}
    return found - {"omen-riskcast"}


@cache
def providers() -> Mapping[str, list[str]]:
    """Which distributions install a package; asking reads the records of all of them."""
    return packages_distributions()
