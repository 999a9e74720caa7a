"""Coroutine tests run on the event loop that the servers run on."""

import inspect

import pytest

import serving


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    serving.run(pyfuncitem.obj(**arguments))
    return True
