"""Create figures without a screen, and write files that are identical for identical data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mla_fairseq.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b4b8a", "#7f7f7f")
"""Colours that colour-blind readers can distinguish (after Okabe & Ito)."""
DOTS_PER_INCH = 150


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches, with a canvas that needs no screen.

    Raises:
        ModuleNotFoundError: matplotlib is not installed (extra ``plots``).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, stem: str | Path) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``, without dates or random identifiers; return their paths."""
    return [_save(figure, Path(f"{stem}.{suffix}")) for suffix in ("png", "svg")]


def _save(figure: Figure, path: Path) -> Path:
    """Write a picture completely or not at all."""
    import matplotlib

    metadata = {"Date": None} if path.suffix == ".svg" else None
    # a fixed salt gives the same identifiers
    with matplotlib.rc_context({"svg.hashsalt": "mla_fairseq"}), replacing(path) as part:
        figure.savefig(part, dpi=DOTS_PER_INCH, format=path.suffix[1:], metadata=metadata)
    return path
