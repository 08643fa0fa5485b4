"""Finds places for the labels of a curve's points, so that none covers another label, a point or a line."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

_DIRECTIONS = ((0, 1), (0, -1), (-1, 1), (1, -1), (1, 0), (-1, 0), (1, 1), (-1, -1))
"""Tried in this order; x to the right, y upwards."""
_DISTANCES = (5, 9, 14)
"""Points between a label and what it labels."""
_ALIGN = {-1: "right", 0: "center", 1: "left"}
_ALIGN_UP = {-1: "top", 0: "center", 1: "bottom"}
_LINE, _SOLID, _OUTSIDE, _AWAY = 1.0, 30.0, 1e6, 2.0
"""Costs: a covered dot of a line, of a point, label or legend; leaving the axes; a point of distance."""


def place_labels(figure: Figure, axes: Axes, labels: list[tuple[str, float, float, str]]) -> None:
    """Writes each label beside its point.

    Args:
        figure: the finished figure; its layout must not change any more, apart from the labels.
        axes: of the curves.
        labels: text, x and y of the point, colour.
    """
    figure.draw_without_rendering()
    taken = _taken(axes)
    for text, x, y, colour in labels:
        taken = np.concatenate([taken, _write(axes, taken, text, (x, y), colour)])


def _write(axes: Axes, taken: np.ndarray, text: str, place: tuple[float, float], colour: str) -> np.ndarray:
    """Takes the cheapest place, the first of equals; returns the dots of it."""
    from matplotlib.patheffects import withStroke

    written = axes.annotate(text, place, (0, 0), textcoords="offset points", fontsize=8, color=colour, parse_math=False)
    written.set(in_layout=False, path_effects=[withStroke(linewidth=2, foreground="white")])
    tried = []
    for distance, place in _places():
        written.set(**place)
        box = written.get_window_extent(axes.figure.canvas.get_renderer())
        tried.append((_cost(box, axes.bbox, taken) + _AWAY * distance, place, box))
    _, place, box = min(tried, key=lambda one: one[0])
    written.set(**place)
    return _fill(box)


def _places() -> Iterator[tuple[float, dict]]:
    """Distance and text properties of every place around a point."""
    for distance in _DISTANCES:
        for across, up in _DIRECTIONS:
            share = distance * (0.7 if across and up else 1.0)
            place = {"position": (across * share, up * share), "ha": _ALIGN[across], "va": _ALIGN_UP[up]}
            yield distance, place


def _cost(box: Bbox, inside: Bbox, taken: np.ndarray) -> float:
    """What a label covers, and whether it leaves the axes."""
    outside = not (inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1)
    dots = taken[:, :2]
    covered = ((dots >= (box.x0 - 2, box.y0 - 1)) & (dots <= (box.x1 + 2, box.y1 + 1))).all(axis=1)
    return _OUTSIDE * outside + taken[covered, 2].sum()


def _taken(axes: Axes) -> np.ndarray:
    """Dots of all lines, about 3 pixels apart, of the points and of the legend: x, y (pixels), cost; (N, 3)."""
    found = [np.empty((0, 3))]
    for line in axes.lines:
        corners = line.get_transform().transform(line.get_xydata())
        found.append(_dots(corners, _SOLID))
        for start, end in pairwise(corners):
            steps = int(np.hypot(*(end - start)) / 3) + 2
            found.append(_dots(start + np.linspace(0, 1, steps)[:, None] * (end - start), _LINE))
    if legend := axes.get_legend():
        found.append(_fill(legend.get_window_extent()))
    return np.concatenate(found)


def _fill(box: Bbox) -> np.ndarray:
    """Dots all over a box, (N, 3)."""
    xs, ys = (np.arange(low, high + 3, 3) for low, high in ((box.x0, box.x1), (box.y0, box.y1)))
    return _dots(np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2), _SOLID)


def _dots(places: np.ndarray, cost: float) -> np.ndarray:
    return np.column_stack([places, np.full(len(places), cost)])
