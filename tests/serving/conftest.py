"""Coroutine tests run on asyncio's own event loop.

The servers run on uvloop's, and real server processes are tested on it. Here it would not do: it starts a child process
by a fork that goes on in Python, which a process with gRPC's threads does not survive every time.
"""

import asyncio
import inspect

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True
