"""What a figure is, and that falling short is not overlooked."""

import json
from pathlib import Path

import pytest

from bench.rounds import Figure, Measured, environment, measure, report


def figure(ours: list[float], theirs: list[float], **reach: float) -> Figure:
    return Figure("a figure", "records/s", "as measured", Measured(ours, theirs), "something", **reach)


@pytest.mark.parametrize(
    ("shown", "value", "is_reached"),
    [
        (figure([1, 100, 40], [4, 5, 6], at_least=8.0), 8.0, True),
        (figure([1, 100, 39], [4, 5, 6], at_least=8.0), 7.8, False),
        (figure([2, 10, 4], [2, 2, 2], at_most=2.0), 2.0, True),
        (figure([2, 10, 5], [2, 2, 2], at_most=2.0), 2.5, False),
        (figure([1.0, 9.0, 2.1], [], at_most=2.0), 2.1, False),
        (figure([0.01], [100.0]), 0.0001, True),
    ],
)
def test_a_figure_is_a_median_over_a_median_held_against_its_reach(
    shown: Figure, value: float, is_reached: bool
) -> None:
    assert round(shown.value, 6) == value
    assert shown.is_reached is is_reached


def test_one_figure_that_falls_short_fails_the_run_and_is_marked_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, short = figure([9], [1], at_least=8.0), figure([3], [1], at_most=2.0)
    results = tmp_path / "results.json"
    assert report([good], environment(3), results)
    assert "SHORT" not in capsys.readouterr().out
    assert not report([good, short], environment(3), results)
    assert capsys.readouterr().out.count("SHORT") == 1
    written = json.loads(results.read_text())
    assert [(each["value"], each["is_reached"]) for each in written["figures"]] == [(9.0, True), (3.0, False)]
    assert written["environment"]["rounds"] == 3


def test_rounds_alternate_and_the_first_of_each_is_not_counted() -> None:
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return float(len(order))

    assert measure(lambda: run("ours"), 2, lambda: run("theirs")) == Measured([4.0, 6.0], [3.0, 5.0])
    assert order == ["theirs", "ours"] * 3
