"""The figures as a picture: each as a share of what it has to reach, so that all fit on one axis."""

from pathlib import Path

import pygal

from bench.rounds import Figure


def draw(figures: list[Figure], svg_file: Path) -> None:
    """Bars to the right of 1 reach. Figures without a target are left out."""
    chart = pygal.HorizontalBar(title="Share of what has to be reached", x_title="1 and more reaches", js=())
    for figure in figures:
        if (share := share_reached(figure)) is not None:
            chart.add(f"{figure.name} ({figure.value:.2f}, {figure.reach})", round(share, 3))
    svg_file.write_bytes(chart.render())


def share_reached(figure: Figure) -> float | None:
    if figure.at_most is not None:
        return figure.at_most / figure.value
    return None if figure.at_least is None else figure.value / figure.at_least
