"""A process of its own for what a test must not do to the process it runs in: signals, logging, the end."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PRELUDE = "import asyncio, logging, os, signal, sys, time, warnings\nimport structlog\nimport serving\n"


def child(source: str, **options: Any) -> subprocess.Popen[str]:
    """Runs Python source; stdout is a pipe, and stderr too unless `options` say otherwise."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "protos")])
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([sys.executable, "-c", PRELUDE + source], env=os.environ | {"PYTHONPATH": path}, **options)


def line(process: subprocess.Popen[str]) -> str:
    """The next line of a child's stdout, once it is there; "" at its end."""
    assert process.stdout
    return process.stdout.readline().strip()
