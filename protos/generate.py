"""Write the Python stubs beside their `.proto` files, or (`--check`) say which committed ones are not up to date.

Comparing with a fresh generation in a temporary folder works on any tree, committed or not.
"""

import argparse
import re
import sys
import sysconfig
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def stubs(folder: Path) -> dict[str, bytes]:
    """Content of every generated file of the two packages under `folder`, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for package in ("omen", "riskcast")
        for pattern in GENERATED
        for path in sorted((folder / package).rglob(pattern))
    }


def generate(folder: Path) -> None:
    """Messages for every file, service stubs only for the files that declare a service."""
    sources = sorted(PROTOS.glob("*/v*/*.proto"))
    services = [path for path in sources if re.search(r"^service ", path.read_text("utf-8"), re.MULTILINE)]
    compile_protos(sources, [f"--python_out={folder}", f"--mypy_out=quiet:{folder}"])
    compile_protos(services, [f"--grpc_python_out={folder}", f"--mypy_grpc_out=quiet:{folder}"])


def compile_protos(sources: list[Path], outputs: list[str]) -> None:
    scripts = Path(sysconfig.get_path("scripts"))
    arguments = [
        *("protoc", f"-I{PROTOS}", f"-I{resources.files('grpc_tools') / '_proto'}"),
        *(f"--plugin={plugin}={scripts / plugin}" for plugin in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")),
        *outputs,
        *(str(path.relative_to(PROTOS)) for path in sources),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc refused the .proto files")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a stub is not up to date")
    check = parser.parse_args().check
    committed = stubs(PROTOS)
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = stubs(Path(folder))
    stale = sorted(path for path in committed.keys() | fresh.keys() if committed.get(path) != fresh.get(path))
    if check and stale:
        print("stubs out of date, run `make generate`:", *stale, sep="\n  ", file=sys.stderr)
        return 1
    for path in () if check else stale:
        if path in fresh:
            (PROTOS / path).write_bytes(fresh[path])
        else:
            (PROTOS / path).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
