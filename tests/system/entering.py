"""Sees which handlers of a real server are entered, and what of their requests is parsed."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import pytest

DEADLINE_S = 20.0
BEHAVIOURS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Entrances:
    """Counts by full method name, of every service whose handlers are made while `watching`."""

    def __init__(self) -> None:
        self.entered: Counter[str] = Counter()
        self.parsed: Counter[str] = Counter()
        self.services: set[str] = set()
        self._changed = asyncio.Event()

    def note(self, method: str) -> None:
        self.entered[method] += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def until_entered(self, method: str, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while self.entered[method] < count:
                await self._changed.wait()

    def watched(self, handler: Any, method: str) -> Any:
        """The same handler, which tells when it is entered."""

        def telling(name: str) -> Callable[..., Any]:
            def enter(*arguments: Any) -> Any:
                self.note(method)
                return getattr(handler, name)(*arguments)

            return enter

        def parse(data: bytes) -> Any:
            self.parsed[method] += 1
            return handler.request_deserializer(data)

        [kind] = [name for name in BEHAVIOURS if getattr(handler, name)]
        return handler._replace(**{kind: telling(kind), "request_deserializer": parse})


def watching(monkeypatch: pytest.MonkeyPatch) -> Entrances:
    """From now on the handlers of services tell, whatever they are added to: stubs and reflection make them so."""
    entrances = Entrances()
    make = grpc.method_handlers_generic_handler

    def make_watched(service: str, handlers: dict[str, Any]) -> Any:
        entrances.services.add(service)
        return make(service, {name: entrances.watched(each, f"/{service}/{name}") for name, each in handlers.items()})

    monkeypatch.setattr(grpc, "method_handlers_generic_handler", make_watched)
    return entrances
