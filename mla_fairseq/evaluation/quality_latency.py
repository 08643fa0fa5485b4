"""The quality-latency picture: what a system scores for the time that its reader waits; and the table behind it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mla_fairseq.evaluation.label_places import place_labels
from mla_fairseq.evaluation.pictures import COLOURS, new_figure, save
from mla_fairseq.files import write_text

OFFLINE = "offline_bleu"
_KNOBS = ("k", "chunk", "setting")
_AXES = {
    "al": "average lagging AL (ms)",
    "laal": "length-adaptive average lagging LAAL (ms)",
    "dal": "differentiable average lagging DAL (ms)",
    "ap": "average proportion AP",
    "bleu": "BLEU",
    "chrf": "chrF",
}
_MARKERS = "osD^vP*X"


@dataclass(frozen=True)
class Point:
    """One run of a system.  ``knob``: what sets its latency, one of k, chunk, setting; ``figures``: its numbers."""

    system: str
    knob: str
    setting: str
    figures: Mapping[str, float] = field(default_factory=dict)


def write_points(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows as tsv, under all the columns that occur, in the order in which they first do.

    Args:
        path: the table.
        rows: ``system``, ``k`` or ``chunk``, and figures such as ``bleu`` and ``al``, for instance
            ``{"system": "softmax", "k": 3, **asdict(scores)}``; ``offline_bleu`` for the dashed line; None: no figure.

    Raises:
        ValueError: no row, one without system or setting, or a tab or line break in a value.
    """
    rows = list(rows)
    if not rows:
        raise ValueError(f"no point to write to {path}.")
    for row in rows:
        _check_row(row)
    columns = dict.fromkeys(column for row in rows for column in row)
    lines = ["\t".join(columns), *("\t".join(_cell(row.get(column)) for column in columns) for row in rows)]
    write_text(Path(path), "\n".join(lines) + "\n")


def _check_row(row: Mapping[str, Any]) -> None:
    if not row.get("system") or not any(key in row for key in _KNOBS):
        raise ValueError(f"a point needs 'system' and one of {', '.join(_KNOBS)}, but this one has {', '.join(row)}.")
    for text in map(str, (*row, *row.values())):
        if any(separator in text for separator in "\t\n\r"):
            raise ValueError(f"{text!r} holds a tab or a line break, which a tsv cannot keep.")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def read_points(path: str | Path) -> list[Point]:
    """The table that ``write_points`` wrote; columns that hold no numbers are left out.

    Raises:
        ValueError: no such file, no point in it, or a column is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; write it with write_points, one row for each run.")
    with open(path, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows:
        raise ValueError(f"{path} holds no point; each line but the first is one.")
    points = []
    for number, row in enumerate(rows, start=2):
        knob = next((key for key in _KNOBS if row.get(key)), None)
        if not row.get("system") or knob is None:
            raise ValueError(f"{path} line {number} needs a 'system' and one of {', '.join(_KNOBS)}.")
        points.append(Point(row["system"], knob, row[knob], _figures(row)))
    return points


def _figures(row: Mapping[str | None, Any]) -> dict[str, float]:
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
    """Writes ``stem.png`` and ``stem.svg``: a line with labelled points for each system.

    A system's offline BLEU is a dashed line of its colour.  Points are joined in the order of the table, so that a
    latency which does not grow with k is seen.  The same points give the same files.

    Args:
        points: the table of ``write_points``, or points.
        stem: path of the pictures without their suffix.
        x: column of the latency, such as ``al``, ``laal`` or ``al_ca``.
        y: column of the quality, ``bleu`` or ``chrf``.
        title: written above the picture.

    Raises:
        ValueError: the table cannot be read, or a point has no ``x`` or ``y``.
    """
    points = read_points(points) if isinstance(points, str | Path) else list(points)
    if not points:
        raise ValueError("no point to draw.")
    for point in points:
        if missing := [column for column in (x, y) if column not in point.figures]:
            known = ", ".join(point.figures) or "none"
            raise ValueError(
                f"{point.system}, {point.knob}={point.setting} has no figure {missing[0]!r}; it has {known}."
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


def _plot(axes, number: int, points: list[Point], x: str, y: str) -> str:
    """Draws one system; returns its colour."""
    colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
    places = [(point.figures[x], point.figures[y]) for point in points]
    axes.plot(*zip(*places, strict=True), color=colour, marker=marker, markersize=5, label=points[0].system)
    offline = {point.figures[OFFLINE] for point in points if OFFLINE in point.figures}
    for bleu in sorted(offline) if y == "bleu" else ():
        axes.axhline(bleu, color=colour, linestyle="--", linewidth=1, label=f"its offline BLEU: {bleu:.1f}")
    return colour


def _label(point: Point, knobs: list[str]) -> str:
    return point.setting if len(knobs) == 1 else f"{point.knob}={point.setting}"


def _dress(axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(_axis_title(x))
    axes.set_ylabel(_axis_title(y))
    axes.margins(0.08)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, parse_math=False)


def _axis_title(column: str) -> str:
    plain = column.removesuffix("_ca")
    return _AXES.get(plain, plain) + (", computation-aware" if column != plain else "")
