"""What the house tests look at: the files of this checkout that people write."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("ledger", "contract", "serving", "omen_server", "riskcast_server", "bench")
WRITTEN = (*PRODUCT, "tests", "protos", "docs", "deploy", ".ci")
CODE_SUFFIXES = {".py", ".proto", ".sql", ".sh", ".toml", ".yaml", ".yml"}
TEXT_SUFFIXES = CODE_SUFFIXES | {".md", ".lock", ".txt"}


def is_generated(path: Path) -> bool:
    return path.stem.endswith(("_pb2", "_pb2_grpc"))


@cache
def written_files() -> tuple[Path, ...]:
    """Every file a person wrote: not the stubs, not caches, not what a virtual environment holds."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    found += [path for folder in WRITTEN for path in (ROOT / folder).rglob("*") if path.is_file()]
    return tuple(sorted(path for path in found if "__pycache__" not in path.parts and not is_generated(path)))


def python_files(*folders: str) -> list[Path]:
    """Python files under the named top folders, all of them by default."""
    return [
        path
        for path in written_files()
        if path.suffix == ".py" and (not folders or path.relative_to(ROOT).parts[0] in folders)
    ]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), filename=str(path))


def definitions(path: Path) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def place(path: Path, line: int | None = None) -> str:
    """Where to click: `folder/file.py:12`."""
    relative = path.relative_to(ROOT).as_posix()
    return relative if line is None else f"{relative}:{line}"
