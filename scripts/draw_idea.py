#!/usr/bin/env python
"""Draw the README's picture: three attention sites, one registry, and what a linear mechanism's state saves."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from mla_fairseq.files import replacing

INK, FAINT, CARD, BOX = "#22303c", "#5f6f7c", "#ffffff", "#eef2f5"
SITE, LINEAR = "#c4601a", "#1f7391"
NAMES = ("softmax", "relu", "elu", "cosformer", "your own")
STEPS = 8


def box(axes: Axes, x: float, y: float, width: float, height: float, fill: str, edge: str = "none") -> None:
    """Draw a rounded box with its lower left corner at (x, y); one unit is a tenth of an inch."""
    shape = f"round,pad=0,rounding_size={min(1.0, height / 4)}"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, facecolor=fill, edgecolor=edge, linewidth=1.2))


def text(axes: Axes, x: float, y: float, words: str, size: float = 12, **style: object) -> None:
    """Write words centred on (x, y)."""
    axes.text(x, y, words, **{"fontsize": size, "color": INK, "ha": "center", "va": "center", **style})


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.6, "shrinkA": 0})


def site(axes: Axes, x: float, y: float, name: str) -> None:
    """Draw an attention site of the model."""
    box(axes, x, y, 17, 5, SITE)
    text(axes, x + 8.5, y + 2.5, name, color="white", weight="bold")


def draw_model(axes: Axes) -> None:
    """Draw the model: speech in, words out, three sites."""
    text(axes, 7, 53, "speech", size=13)
    box(axes, 15, 45, 23, 16, BOX)
    text(axes, 26.5, 57.8, "encoder", size=14, weight="bold")
    site(axes, 18, 48, "self-attention")
    box(axes, 48, 45, 43, 16, BOX)
    text(axes, 69.5, 57.8, "decoder", size=14, weight="bold")
    site(axes, 51, 48, "cross-attention")
    site(axes, 71, 48, "self-attention")
    text(axes, 100, 53, "words", size=13)
    for start, end in (((10.6, 53), (15, 53)), ((38, 53), (48, 53)), ((91, 53), (96, 53))):
        arrow(axes, start, end)


def draw_registry(axes: Axes) -> None:
    """Draw the registry, from which each site takes a mechanism by name."""
    box(axes, 15, 33, 76, 6.5, CARD, edge=SITE)
    text(axes, 15.5, 41, "one registry", color=FAINT, ha="left", style="italic")
    width = 76 / len(NAMES)
    for place, name in enumerate(NAMES):
        text(axes, 15 + width * (place + 0.5), 36.25, name, family="monospace", color=SITE)
    for x in (26.5, 59.5, 79.5):
        arrow(axes, (x, 39.5), (x, 48), SITE)


def caption(axes: Axes, x: float, title: str, first: str, second: str) -> None:
    """Write a panel's title above its drawing and two lines below it."""
    text(axes, x, 23.6, title, size=14, weight="bold", ha="left")
    text(axes, x, 5.8, first, ha="left", color=FAINT)
    text(axes, x, 3.4, second, ha="left", color=FAINT)


def draw_quadratic(axes: Axes, x: float, y: float, cell: float = 1.6) -> None:
    """Draw softmax: one row per step, one cell per weight that it computes."""
    for row in range(STEPS):
        for column in range(row + 1):
            corner = (x + column * cell, y + (STEPS - 1 - row) * cell)
            fill = SITE if row == STEPS - 1 else "#f0cdb3"
            axes.add_patch(Rectangle(corner, cell * 0.86, cell * 0.86, facecolor=fill, edgecolor="none"))
    text(axes, x + STEPS * cell + 1, y + cell * 0.4, "step t weighs t keys", ha="left", color=SITE)
    caption(
        axes, x, "softmax attention", "every step looks at all that came before:", "memory and time grow with the talk"
    )


def draw_recurrent(axes: Axes, x: float, y: float) -> None:
    """Draw linear attention: every step writes to and reads a state of constant size."""
    steps, size, pitch = 5, 6, 10
    for step in range(steps):
        left = x + step * pitch
        axes.add_patch(Rectangle((left, y), size, size, facecolor=LINEAR, edgecolor="none", alpha=0.6 + 0.1 * step))
        text(axes, left + size / 2, y + size / 2, "state", size=11, color="white")
        if step + 1 < steps:
            arrow(axes, (left + size + 0.2, y + size / 2), (left + pitch - 0.2, y + size / 2), LINEAR)
    caption(
        axes,
        x,
        "linear attention",
        "every step adds to one state and reads it:",
        "the same memory and time after 10 tokens or 10 000",
    )


def draw() -> Figure:
    """Return the picture, on a white card so that it can be read on dark pages."""
    figure = Figure(figsize=(10.6, 6.4))
    figure.patch.set_alpha(0)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 106), ylim=(0, 64))
    axes.set_axis_off()
    box(axes, 0.3, 0.3, 105.4, 63.4, CARD, edge="#c9d3db")
    draw_model(axes)
    draw_registry(axes)
    axes.plot([4, 102], [28, 28], color="#c9d3db", linewidth=1)
    draw_quadratic(axes, 5, 8.6)
    draw_recurrent(axes, 54, 11.5)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path("docs/idea.svg"), help="picture to write: .svg, .png or .pdf"
    )
    output = parser.parse_args().output
    # without a date and with fixed ids the file changes only when the picture does
    matplotlib.rcParams["svg.hashsalt"] = "idea"
    with replacing(output) as part:
        metadata = {"Date": None} if output.suffix == ".svg" else None
        draw().savefig(part, dpi=110, format=output.suffix[1:], metadata=metadata)


if __name__ == "__main__":
    main()
