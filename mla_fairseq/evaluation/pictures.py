"""What all pictures share: a figure without a screen, and files that are the same for the same data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b4b8a", "#7f7f7f")
"""Can be told apart by the colour-blind (after Okabe & Ito)."""
DOTS_PER_INCH = 150


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, with a canvas that needs no screen.

    Raises:
        ModuleNotFoundError: matplotlib is not installed (extra ``plots``).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, stem: str | Path) -> list[Path]:
    """Writes ``stem.png`` and ``stem.svg``; neither holds a date or a random name."""
    return [_save(figure, Path(f"{stem}.{kind}")) for kind in ("png", "svg")]


def _save(figure: Figure, path: Path) -> Path:
    """Written beside its place first, so that a killed run leaves no half picture."""
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with matplotlib.rc_context({"svg.hashsalt": "mla_fairseq"}):
        figure.savefig(partial, dpi=DOTS_PER_INCH, format=path.suffix[1:], metadata=metadata)
    os.replace(partial, path)
    return path
