"""Reads the log of ``fairseq-train --log-format json``, also one that several sessions appended to."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median

_LINE = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) \| \w+ \| (\S+) \| (.*)$")
_PARAMETERS = re.compile(r"num\. shared model params: ([\d,]+)")
SESSION = "# session"


@dataclass(frozen=True)
class Point:
    """One log line.  ``update``: updates so far; ``minutes``: training time so far, pauses left out; loss in bits."""

    update: int
    minutes: float
    loss: float
    perplexity: float


@dataclass
class TrainingLog:
    """What a log says.  ``words_per_second`` counts target tokens; ``epochs`` is fractional."""

    train: list[Point] = field(default_factory=list)
    valid: list[Point] = field(default_factory=list)
    parameters: int | None = None
    updates: int = 0
    epochs: float = 0.0
    minutes: float = 0.0
    words_per_second: float | None = None
    updates_per_second: float | None = None


def parse_line(line: str) -> tuple[datetime, str, dict[str, str] | str] | None:
    """Time, tag (``train_inner``, ``train``, a validation subset, a module) and the statistics or the message."""
    match = _LINE.match(line)
    if not match:
        return None
    text = match.group(3).strip()
    message: dict[str, str] | str = text
    if text.startswith("{") and text.endswith("}"):
        try:
            message = json.loads(text)
        except json.JSONDecodeError:
            message = text
    return datetime.fromisoformat(match.group(1)), match.group(2), message


def read_training_log(path: str | Path) -> TrainingLog:
    """All sessions of a training as one curve.

    A line that begins with ``# session`` starts a new session: the pause before it is not training time.  Where a
    resumed session repeats updates, its numbers replace the older ones.

    Raises:
        ValueError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"training log {path} does not exist; it is written by the train stage.")
    log, train, valid, speeds = TrainingLog(), {}, {}, []
    before, start, now = 0.0, None, None
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(SESSION):
            before, start = log.minutes, None
            continue
        parsed = parse_line(line)
        if parsed is None:
            continue
        now, tag, message = parsed
        start = start or now
        log.minutes = before + (now - start).total_seconds() / 60
        if isinstance(message, str):
            found = _PARAMETERS.search(message)
            log.parameters = int(found.group(1).replace(",", "")) if found else log.parameters
            continue
        _take(log, train, valid, speeds, tag, message)
    log.train, log.valid = ([points[update] for update in sorted(points)] for points in (train, valid))
    if speeds:
        log.words_per_second, log.updates_per_second = (median(column) for column in zip(*speeds, strict=True))
    return log


def _take(log: TrainingLog, train: dict, valid: dict, speeds: list, tag: str, stats: dict[str, str]) -> None:
    """Files one line's statistics; epoch summaries (tag ``train``) repeat what the inner lines said."""
    if tag == "train_inner":
        update = int(stats["num_updates"])
        train[update] = _point(update, log.minutes, stats, "")
        log.updates, log.epochs = update, float(stats["update"])
        if "wps" in stats and "ups" in stats and float(stats["ups"]) > 0:
            speeds.append((float(stats["wps"]), float(stats["ups"])))
    elif tag == "train":
        log.updates = max(log.updates, int(stats["train_num_updates"]))
    elif f"{tag}_num_updates" in stats:
        update = int(stats[f"{tag}_num_updates"])
        valid[update] = _point(update, log.minutes, stats, f"{tag}_")


def _point(update: int, minutes: float, stats: dict[str, str], prefix: str) -> Point:
    """Perplexity is of the true target where the criterion logs it (``nll_loss``), else of the loss."""
    loss = float(stats.get(f"{prefix}nll_loss", stats[f"{prefix}loss"]))
    return Point(update, minutes, loss, float(stats.get(f"{prefix}ppl", 2**loss)))
