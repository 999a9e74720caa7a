"""What the demo expects is looked for, and its absence is told in one line."""

import asyncio
from itertools import chain, repeat

import pytest

from omen_server.demo.expectation import ExpectationFailed, expect, until


def test_what_is_as_expected_passes_in_silence() -> None:
    expect("rows", 1, 1)


def test_what_is_otherwise_is_told_with_both_values() -> None:
    with pytest.raises(ExpectationFailed, match=r"^rows: expected 1, saw 2$"):
        expect("rows", 2, 1)


def test_waiting_ends_as_soon_as_the_answer_is_the_expected_one() -> None:
    seen = chain([0, 1], repeat(2))

    async def ask() -> int:
        return next(seen)

    asyncio.run(until("rows", ask, 2, within_s=30.0))
    assert next(seen) == 2


def test_waiting_ends_at_its_deadline_with_what_was_seen_last() -> None:
    async def ask() -> int:
        return 3

    with pytest.raises(ExpectationFailed, match=r"^rows: expected 2 within 0.05 s, saw 3$"):
        asyncio.run(until("rows", ask, 2, within_s=0.05))
