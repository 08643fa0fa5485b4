"""Draw quality against latency, and read and write the table of points behind the picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mla_fairseq.evaluation.label_places import place_labels
from mla_fairseq.evaluation.pictures import COLOURS, new_figure, save
from mla_fairseq.files import check_file, read_tsv, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OFFLINE = "offline_bleu"
_KNOBS = ("k", "chunk", "setting")
_AXES = {
    "al": "average lagging AL (ms)",
    "laal": "length-adaptive average lagging LAAL (ms)",
    "dal": "differentiable average lagging DAL (ms)",
    "ap": "average proportion AP",
    "yaal": "yet another average lagging YAAL (ms)",
    "long_yaal": "LongYAAL (ms)",
    "long_laal": "LongLAAL (ms)",
    "bleu": "BLEU",
    "chrf": "chrF",
}
_MARKERS = "osD^vP*X"
_LARGEST = 1e9  # ms or scores; matplotlib fails with much larger numbers


@dataclass(frozen=True)
class Point:
    """One run of a system.

    Attributes:
        system: its name.
        knob: what sets the latency: ``k``, ``chunk`` or ``setting``.
        setting: the value of the knob.
        figures: scores by column, such as ``bleu`` and ``al``.
    """

    system: str
    knob: str
    setting: str
    figures: Mapping[str, float] = field(default_factory=dict)


def write_points(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as tsv, with every column that occurs, in the order of first occurrence.

    Args:
        path: the table.
        rows: ``system``, ``k`` or ``chunk``, and scores such as ``bleu`` and ``al``, for example
            ``{"system": "softmax", "k": 3, **asdict(scores)}``; ``offline_bleu`` draws the dashed line; ``None`` is
            written as an empty cell.

    Raises:
        ValueError: no row, a row without system or setting, or a tab or line break in a value.
    """
    rows = list(rows)
    if not rows:
        raise ValueError(f"no point to write to {path}: give at least one row")
    for row in rows:
        _check_row(row)
    columns = dict.fromkeys(column for row in rows for column in row)
    lines = ["\t".join(columns), *("\t".join(_cell(row.get(column)) for column in columns) for row in rows)]
    write_text(Path(path), "\n".join(lines) + "\n")


def _check_row(row: Mapping[str, Any]) -> None:
    """Check that a row can be written and read again."""
    if not row.get("system") or not any(key in row for key in _KNOBS):
        raise ValueError(f"a point lacks 'system' or all of {', '.join(_KNOBS)} (it has {', '.join(row)}): add them")
    for text in map(str, (*row, *row.values())):
        if any(separator in text for separator in "\t\n\r"):
            raise ValueError(f"a value contains a tab or a line break ({text!r}): remove it, the table is a tsv")


def _cell(value: Any) -> str:
    """Return the text of a cell; floats have four decimals."""
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def read_points(path: str | Path) -> list[Point]:
    """Read a table of ``write_points``; cells that are not numbers are left out of the figures.

    Raises:
        ValueError: a missing or empty table, or a row without system or setting.
    """
    path = check_file(Path(path), "write it with mla-sweep, mla-sweep-agent or mla-evaluate --points")
    rows = read_tsv(path)
    if not rows:
        raise ValueError(f"{path} contains no point: add one line for each run")
    points = []
    for number, row in enumerate(rows, start=2):
        knob = next((key for key in _KNOBS if row.get(key)), None)
        if not row.get("system") or knob is None:
            raise ValueError(f"{path} line {number} lacks 'system' or all of {', '.join(_KNOBS)}: add them")
        points.append(Point(row["system"], knob, row[knob], _figures(row)))
    return points


def _figures(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row."""
    figures = {}
    for key, text in row.items():
        try:
            figures[key] = float(text)
        except (TypeError, ValueError):
            continue
    return figures


def draw_quality_latency(
    points: str | Path | Iterable[Point], stem: str | Path, x: str = "al", y: str = "bleu", title: str = ""
) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``, a line with labelled points for each system; return their paths.

    The offline BLEU of a system is a dashed line of the same colour. The line joins points in the order of the table,
    which shows a latency that does not grow with k. The same points give the same files.

    Args:
        points: the table of ``write_points``, or points.
        stem: path of the pictures without suffix.
        x: column of the latency, such as ``al``, ``laal`` or ``al_ca``.
        y: column of the quality, ``bleu`` or ``chrf``.
        title: title above the picture.

    Raises:
        ValueError: the table cannot be read, or a point has no ``x`` or ``y``, or one that is not finite or too large.
    """
    points = read_points(points) if isinstance(points, str | Path) else list(points)
    if not points:
        raise ValueError("no point to draw: give at least one")
    for point in points:
        if missing := [column for column in (x, y) if column not in point.figures]:
            known = ", ".join(point.figures) or "none"
            raise ValueError(
                f"{point.system}, {point.knob}={point.setting} has no {missing[0]!r} (it has {known}): "
                "choose another --latency or --quality"
            )
        if wrong := [column for column in (x, y, OFFLINE) if not abs(point.figures.get(column, 0)) < _LARGEST]:
            raise ValueError(
                f"{point.system}, {point.knob}={point.setting} has a {wrong[0]} that cannot be drawn "
                f"({point.figures[wrong[0]]:g}): correct the table"
            )
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    knobs = list(dict.fromkeys(point.knob for point in points))
    labels = []
    for number, system in enumerate(dict.fromkeys(point.system for point in points)):
        members = [point for point in points if point.system == system]
        colour = _plot(axes, number, members, x, y)
        labels += [(_label(one, knobs), one.figures[x], one.figures[y], colour) for one in members]
    _dress(axes, x, y, title)
    legend = axes.legend(loc="best", fontsize=8, title=f"labels: {' or '.join(knobs)}", title_fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)
    place_labels(figure, axes, labels)
    return save(figure, stem)


def _plot(axes: Axes, number: int, points: list[Point], x: str, y: str) -> str:
    """Draw one system; return its colour."""
    colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
    places = [(point.figures[x], point.figures[y]) for point in points]
    axes.plot(*zip(*places, strict=True), color=colour, marker=marker, markersize=5, label=points[0].system)
    offline = {point.figures[OFFLINE] for point in points if OFFLINE in point.figures}
    for bleu in sorted(offline) if y == "bleu" else ():
        axes.axhline(bleu, color=colour, linestyle="--", linewidth=1, label=f"{points[0].system}, offline: {bleu:.1f}")
    return colour


def _label(point: Point, knobs: list[str]) -> str:
    """Return the label of a point, with the knob if the picture has several."""
    return point.setting if len(knobs) == 1 else f"{point.knob}={point.setting}"


def _dress(axes: Axes, x: str, y: str, title: str) -> None:
    """Add title and axis labels."""
    axes.set_xlabel(_axis_title(x))
    axes.set_ylabel(_axis_title(y))
    axes.margins(0.08)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, parse_math=False)


def _axis_title(column: str) -> str:
    """Return the axis label of a column."""
    plain = column.removesuffix("_ca")
    return _AXES.get(plain, plain) + (", computation-aware" if column != plain else "")
