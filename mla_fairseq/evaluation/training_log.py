"""Read the log of ``fairseq-train --log-format json``, also of a training that was resumed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median

from mla_fairseq.files import check_file
from mla_fairseq.parsing import parse_json

_LINE = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) \| \w+ \| (\S+) \| (.*)$")
_PARAMETERS = re.compile(r"num\. shared model params: ([\d,]+)")
SESSION = "# session"


@dataclass(frozen=True)
class Point:
    """One log line.

    Attributes:
        update: number of updates so far.
        minutes: training time so far, without pauses.
        loss: in bits.
        perplexity: 2 ** loss, or as logged.
    """

    update: int
    minutes: float
    loss: float
    perplexity: float


@dataclass
class TrainingLog:
    """The content of a log.

    Attributes:
        train, valid: losses by update.
        parameters: number of parameters of the model.
        updates, epochs, minutes: at the end; epochs are fractional.
        words_per_second, updates_per_second: medians; words are target tokens.
    """

    train: list[Point] = field(default_factory=list)
    valid: list[Point] = field(default_factory=list)
    parameters: int | None = None
    updates: int = 0
    epochs: float = 0.0
    minutes: float = 0.0
    words_per_second: float | None = None
    updates_per_second: float | None = None


def parse_line(line: str) -> tuple[datetime, str, dict[str, str] | str] | None:
    """Return time, tag, and the statistics or the message of a line; ``None`` for lines of other programs.

    The tag is ``train_inner``, ``train``, a validation subset or a module.
    """
    match = _LINE.match(line)
    if not match:
        return None
    text = match.group(3).strip()
    message: dict[str, str] | str = text
    if text.startswith("{") and text.endswith("}"):
        try:
            message = parse_json(text)
        except ValueError:
            message = text
    return datetime.fromisoformat(match.group(1)), match.group(2), message


def read_training_log(path: str | Path) -> TrainingLog:
    """Read all sessions of a training as one curve.

    A line that begins with ``# session`` starts a new session; the pause before it is not training time. If a resumed
    session repeats updates, its values replace the older ones.

    Raises:
        ValueError: the file is missing, or a line with statistics is damaged.
    """
    path = check_file(Path(path), "run the train stage first")
    log = TrainingLog()
    train: dict[int, Point] = {}
    valid: dict[int, Point] = {}
    speeds: list[tuple[float, float]] = []
    before, start = 0.0, None  # minutes of earlier sessions, and the time of this session's first line
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
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
        try:
            _take(log, train, valid, speeds, tag, message)
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{path}:{number} has damaged statistics ({error}): delete the line") from error
    log.train, log.valid = ([points[update] for update in sorted(points)] for points in (train, valid))
    if speeds:
        log.words_per_second, log.updates_per_second = (median(column) for column in zip(*speeds, strict=True))
    return log


def _take(
    log: TrainingLog,
    train: dict[int, Point],
    valid: dict[int, Point],
    speeds: list[tuple[float, float]],
    tag: str,
    stats: dict[str, str],
) -> None:
    """Add the statistics of one line; of epoch summaries (tag ``train``) only the number of updates is new."""
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
    """Return a point, from the loss without label smoothing (``nll_loss``) if the criterion logs it."""
    loss = float(stats.get(f"{prefix}nll_loss", stats[f"{prefix}loss"]))
    return Point(update, minutes, loss, float(stats.get(f"{prefix}ppl", 2**loss)))
