"""Interval arithmetic, against Python's own sets."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.coverage import Coverage

indexes = st.sets(st.integers(1, 60))


def held(coverage: Coverage) -> set[int]:
    return {index for first, last in coverage.intervals for index in range(first, last + 1)}


@given(indexes)
def test_it_holds_what_it_was_given_and_counts_it(given_indexes: set[int]) -> None:
    coverage = Coverage.of(given_indexes)
    assert held(coverage) == given_indexes
    assert coverage.count == len(given_indexes)
    assert {index for index in range(62) if index in coverage} == given_indexes


@given(indexes)
def test_its_intervals_ascend_and_never_touch(given_indexes: set[int]) -> None:
    intervals = Coverage.of(given_indexes).intervals
    assert all(one[1] + 1 < other[0] for one, other in itertools.pairwise(intervals))


@given(indexes, indexes)
def test_union_difference_and_intersection_are_those_of_sets(one: set[int], other: set[int]) -> None:
    left, right = Coverage.of(one), Coverage.of(other)
    assert held(left | right) == one | other
    assert held(left - right) == one - other
    assert held(left & right) == one & other
    assert left | right == Coverage.of(one | other)
    assert left - right == Coverage.of(one - other)


@given(indexes)
def test_text_comes_back_as_it_was(given_indexes: set[int]) -> None:
    coverage = Coverage.of(given_indexes)
    assert Coverage.decode(coverage.encode()) == coverage


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 20))))
def test_overlapping_ranges_become_one(runs: list[tuple[int, int]]) -> None:
    spans = [(first, first + length) for first, length in runs]
    assert held(Coverage.spanning(spans)) == {index for first, last in spans for index in range(first, last + 1)}


def test_the_text_is_readable() -> None:
    assert Coverage.of([1, 2, 3, 502, 510, 511]).encode() == "1-3,502,510-511"
    assert Coverage().encode() == ""


@pytest.mark.parametrize("interval", [(0, 1), (3, 2), (-1, -1)])
def test_what_is_no_range_of_record_indexes_is_refused(interval: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not a range"):
        Coverage.spanning([interval])


def test_a_segment_without_records_has_none() -> None:
    assert Coverage.up_to(0) == Coverage()
    assert Coverage.up_to(3).intervals == ((1, 3),)
