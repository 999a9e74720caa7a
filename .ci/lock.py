"""Write `requirements.lock`, or say offline whether it still answers what the two pyproject.toml ask for.

The lock opens with a digest of exactly the tables it was resolved from; when they change the digests differ.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
PROJECTS = (ROOT / "pyproject.toml", ROOT / "protos" / "pyproject.toml")
DIGEST_LINE = "# resolved from tables: sha256:"


def dependency_tables(project: Path) -> dict[str, Any]:
    """Everything in a pyproject.toml that decides what is installed."""
    tables = tomllib.loads(project.read_text("utf-8"))
    return {
        "name": tables["project"]["name"],
        "requires-python": tables["project"]["requires-python"],
        "build": sorted(tables["build-system"]["requires"]),
        "runtime": sorted(tables["project"]["dependencies"]),
        "extras": {name: sorted(wanted) for name, wanted in tables["project"].get("optional-dependencies", {}).items()},
    }


def digest(tables: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()


def requirements(tables: list[dict[str, Any]]) -> list[str]:
    """All that must come from outside: our own distributions are installed from this checkout."""
    wanted = {
        requirement
        for table in tables
        for group in (table["build"], table["runtime"], *table["extras"].values())
        for requirement in group
    }
    own = tuple(f"{table['name']}==" for table in tables)
    return sorted(requirement for requirement in wanted if not requirement.startswith(own))


def recorded_digest() -> str | None:
    lines = LOCK.read_text("utf-8").splitlines() if LOCK.exists() else []
    return next((line.removeprefix(DIGEST_LINE) for line in lines if line.startswith(DIGEST_LINE)), None)


def write(tables: list[dict[str, Any]], upgrade: list[str]) -> int:
    """Resolve for every platform from Python 3.11 on; versions already locked stay unless `upgrade` says otherwise."""
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--universal", "--generate-hashes"),
        *("--no-emit-index-url", "--no-header", "--no-annotate", "--python-version", "3.11"),
        *("--output-file", str(LOCK), *upgrade),
    ]
    resolved = subprocess.run(command, input="\n".join(requirements(tables)), text=True, stdout=subprocess.DEVNULL)
    if resolved.returncode == 0:
        pins = [line for line in LOCK.read_text("utf-8").splitlines() if not line.startswith("# ")]
        header = ["# Written by `make lock`; names no index, so that any works.", DIGEST_LINE + digest(tables)]
        LOCK.write_text("\n".join([*header, *pins, ""]), "utf-8")
    return resolved.returncode


def check(tables: list[dict[str, Any]]) -> int:
    if recorded_digest() == digest(tables):
        return 0
    print("requirements.lock is stale: a dependency changed since it was written; run `make lock`.", file=sys.stderr)
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["check", "write"])
    action, upgrade = parser.parse_known_args()
    tables = [dependency_tables(project) for project in PROJECTS]
    return check(tables) if action.action == "check" else write(tables, upgrade)


if __name__ == "__main__":
    sys.exit(main())
