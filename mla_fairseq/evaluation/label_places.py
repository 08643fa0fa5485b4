"""Place the labels of a curve's points so that none covers another label, a point or a line.

Each label gets the cheapest of 24 places around its point. (adjustText moves labels in small steps and leaves them on
steep lines, although the other side of the point is free.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path
    from matplotlib.transforms import Bbox

_DIRECTIONS = ((0, 1), (0, -1), (-1, 1), (1, -1), (1, 0), (-1, 0), (1, 1), (-1, -1))
"""In order of preference; x to the right, y upwards."""
_DISTANCES = (5, 9, 14)
"""Points between a label and its point."""
_ALIGN, _ALIGN_UP = ("center", "left", "right"), ("center", "bottom", "top")
"""Sides of a label that face its point, indexed by direction: 0, 1, -1."""
_LINE, _SOLID, _OUTSIDE, _AWAY = 6.0, 60.0, 1e6, 2.0
"""Costs: crossing a line; covering a point, label or legend; leaving the axes; each point of distance."""


def place_labels(figure: Figure, axes: Axes, labels: Sequence[tuple[str, float, float, str]]) -> None:
    """Write each label beside its point.

    Args:
        figure: the finished figure; only labels may be added to it afterwards.
        axes: the axes of the curves.
        labels: (text, x, y, colour); x and y are those of the point.
    """
    from matplotlib.patheffects import withStroke

    figure.draw_without_rendering()
    paths = [line.get_transform().transform_path(line.get_path()) for line in axes.lines]
    taken = [legend.get_window_extent()] if (legend := axes.get_legend()) else []
    for text, x, y, colour in labels:
        label = axes.annotate(text, (x, y), (0, 0), textcoords="offset points", fontsize=8, color=colour)
        label.set(parse_math=False, in_layout=False, path_effects=[withStroke(linewidth=2, foreground="white")])
        costs = []
        for distance, place in _places():
            label.set(**place)
            box = label.get_window_extent().padded(2)
            costs.append((_cost(box, axes.bbox, paths, taken) + _AWAY * distance, place, box))
        _, place, box = min(costs, key=lambda one: one[0])  # of equal costs the first: the preferred direction
        label.set(**place)
        taken.append(box)


def _places() -> Iterator[tuple[float, dict]]:
    """Yield distance and text properties of every place around a point."""
    for distance, (across, up) in product(_DISTANCES, _DIRECTIONS):
        share = distance * (0.7 if across and up else 1.0)  # of a diagonal, so that all are equally far
        yield distance, {"position": (across * share, up * share), "ha": _ALIGN[across], "va": _ALIGN_UP[up]}


def _cost(box: Bbox, inside: Bbox, paths: list[Path], taken: list[Bbox]) -> float:
    """Return the cost of a label at ``box`` (pixels)."""
    outside = not (inside.contains(*box.min) and inside.contains(*box.max))
    points = sum(box.count_contains(path.vertices) for path in paths)
    lines = sum(path.intersects_bbox(box, filled=False) for path in paths)
    return _OUTSIDE * outside + _SOLID * (points + box.count_overlaps(taken)) + _LINE * lines
