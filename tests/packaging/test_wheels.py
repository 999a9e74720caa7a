"""What people install: both wheels, each in an environment that cannot see this checkout."""

import json
import subprocess
import sys
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAIN_PACKAGES = ("ledger", "contract", "serving", "omen_server", "riskcast_server")
PROTO_PACKAGES = ("omen", "riskcast")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys
names = list(sys.argv[1:])
for package in sys.argv[1:]:
    names += [found.name for found in pkgutil.walk_packages(importlib.import_module(package).__path__, package + ".")]
print(json.dumps({name: importlib.import_module(name).__file__ for name in names if not name.endswith("__main__")}))
"""


@dataclass(frozen=True)
class Environment:
    folder: Path

    def run(self, *command: str) -> str:
        """Standard output of a command of this environment, started away from the checkout."""
        program = self.folder / "bin" / command[0]
        finished = subprocess.run(
            [program, *command[1:]], cwd=self.folder, env={}, capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    def imported_files(self, *packages: str) -> dict[str, Path]:
        """Where each module of the packages was loaded from; every one of them is imported."""
        found: dict[str, str] = json.loads(self.run("python", "-I", "-c", IMPORT_EVERYTHING, *packages))
        return {name: Path(path) for name, path in found.items()}


def build_wheel(project: Path, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(folder: Path, wheels: list[Path], dependencies: Path) -> Environment:
    """A new environment holding only the wheels; what they depend on is found in `dependencies`."""
    venv.create(folder, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(folder / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", *wheels], check=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # Python does not read .pth files of a folder added by one: the editable checkout stays out of sight.
    (site_packages / "dependencies.pth").write_text(f"{dependencies}\n", "utf-8")
    return Environment(folder)


def link_distributions(folder: Path, *distributions: str) -> Path:
    """A folder in which nothing but these installed distributions can be imported."""
    for name in distributions:
        for file in files(name) or ():
            link = folder / file
            if ".." not in file.parts and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(Path(str(file.locate())))
    return folder


def source_files(base: Path, packages: tuple[str, ...]) -> set[str]:
    return {
        path.relative_to(base).as_posix()
        for package in packages
        for path in (base / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def wheel_files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def protos_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT / "protos", tmp_path_factory.mktemp("protos_wheel"))


@pytest.fixture(scope="module")
def main_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("main_wheel"))


@pytest.fixture(scope="module")
def protos_alone(protos_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("protos_alone")
    # typing-extensions is what grpcio itself needs.
    dependencies = link_distributions(folder / "dependencies", "protobuf", "grpcio", "typing-extensions")
    return install(folder / "environment", [protos_wheel], dependencies)


@pytest.fixture(scope="module")
def everything(protos_wheel: Path, main_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("everything")
    (installed,) = (Path(sys.prefix) / "lib").glob("python*/site-packages")
    return install(folder / "environment", [protos_wheel, main_wheel], installed)


def test_the_protos_wheel_holds_stubs_proto_files_and_type_markers(protos_wheel: Path) -> None:
    held = wheel_files(protos_wheel)
    assert held == source_files(ROOT / "protos", PROTO_PACKAGES)
    assert {"omen/py.typed", "riskcast/py.typed", "omen/v1/signal_event.proto", "omen/v1/signal_event_pb2.pyi"} <= held


def test_the_main_wheel_holds_every_package_and_data_file(main_wheel: Path) -> None:
    held = wheel_files(main_wheel)
    assert held == source_files(ROOT, MAIN_PACKAGES)
    assert {f"{package}/py.typed" for package in MAIN_PACKAGES} <= held


def test_the_stubs_need_protobuf_and_grpcio_alone(protos_alone: Environment) -> None:
    loaded = protos_alone.imported_files(*PROTO_PACKAGES)
    assert "omen.v1.signal_event_pb2" in loaded
    assert {name for name, path in loaded.items() if not path.is_relative_to(protos_alone.folder)} == set()


def test_every_module_is_importable_from_the_wheels(everything: Environment) -> None:
    loaded = everything.imported_files(*MAIN_PACKAGES, *PROTO_PACKAGES)
    assert {"omen_server.cli", "riskcast_server.cli", "riskcast.v1"} <= loaded.keys()
    assert {name for name, path in loaded.items() if not path.is_relative_to(everything.folder)} == set()


@pytest.mark.parametrize("command", ["omen", "riskcast"])
def test_the_installed_command_says_its_version(everything: Environment, command: str) -> None:
    assert VERSION in everything.run(command, "--version")
