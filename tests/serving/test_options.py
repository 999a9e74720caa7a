"""gRPC ignores an option it does not know, and says nothing."""

import mmap
from importlib.util import find_spec
from pathlib import Path

import pytest

from serving.channels import CHANNEL_OPTIONS
from serving.options import SERVER_OPTIONS

NAMES = sorted({name for name, _ in (*SERVER_OPTIONS, *CHANNEL_OPTIONS)})


@pytest.mark.parametrize("name", NAMES)
def test_an_option_is_one_that_the_core_of_grpc_knows(name: str) -> None:
    spec = find_spec("grpc._cython.cygrpc")
    assert spec
    assert spec.origin
    with Path(spec.origin).open("rb") as core, mmap.mmap(core.fileno(), 0, prot=mmap.PROT_READ) as code:
        assert code.find(name.encode() + b"\0") >= 0
