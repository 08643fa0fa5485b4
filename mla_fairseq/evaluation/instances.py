"""Read the ``instances.log`` of SimulEval 1.1.4: the words of each translation, and when they were emitted."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mla_fairseq.files import check_file
from mla_fairseq.parsing import parse_json

LOG_NAME = "instances.log"
UNITS = ("word", "char")
_NEEDED = ("index", "prediction", "delays", "reference", "source_length")
_AGAIN = "run SimulEval again with an empty --output folder"


@dataclass(frozen=True)
class Instance:
    """One sentence. All times are in ms from the start of its audio.

    Attributes:
        index: row of the test set.
        units: words (or characters) of the translation, in the order of emission.
        delays: for each unit, how much of the source had been read when it was emitted; never decreasing.
        elapsed: the same plus computing time, so never below ``delays``; empty if it was not measured.
        prediction: the translation as text.
        reference: the reference as text.
        reference_length: units of the reference, counted as SimulEval counts them.
        source_length: length of the source in ms.
        source: the log's description of the source; its first entry is the path of the audio.
    """

    index: int
    units: tuple[str, ...]
    delays: tuple[float, ...]
    elapsed: tuple[float, ...]
    prediction: str
    reference: str
    reference_length: int
    source_length: float
    source: tuple[str, ...] = ()

    @property
    def separator(self) -> str:
        """The text between two units of the prediction: a space between words, nothing between characters."""
        return " " if len(self.prediction.split()) == len(self.units) else ""


def find_log(path: str | Path) -> Path:
    """Return the path of the log, given the log or its folder (``simuleval --output``).

    Raises:
        ValueError: the log is missing, or not a regular file.
    """
    path = Path(path)
    log = path / LOG_NAME if os.path.isdir(path) else path
    return check_file(log, "give the --output folder of simuleval")


def read_instances(path: str | Path, unit: str = "word") -> list[Instance]:
    """Return all sentences of a log, ordered by index.

    Args:
        path: the log, or its folder.
        unit: the unit of a delay: ``word`` or ``char``, as in ``simuleval --eval-latency-unit``.

    Raises:
        ValueError: a missing or empty log, an unknown unit, or a line that is truncated, from a speech-to-speech run,
            inconsistent, or repeats the index of another line.
    """
    if unit not in UNITS:
        raise ValueError(f"unknown latency unit ({unit!r}): choose one of {', '.join(UNITS)}")
    path = find_log(path)
    found: dict[int, tuple[str, Instance]] = {}
    for where, line in _lines(path):
        instance = _parse(where, line, unit)
        if instance.index in found:
            earlier = found[instance.index][0].rpartition(" ")[2]
            raise ValueError(f"{where} repeats index {instance.index} of line {earlier}: delete one of the two lines")
        found[instance.index] = where, instance
    if not found:
        raise ValueError(f"{path} contains no sentence: {_AGAIN}")
    return [found[index][1] for index in sorted(found)]


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each line that is not empty, after its place for messages."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text ({error}): give the {LOG_NAME} of simuleval") from error
    yield from ((f"{path} line {number}", line) for number, line in enumerate(lines, start=1) if line.strip())


def _parse(where: str, line: str, unit: str) -> Instance:
    """Return the sentence of a line; ``where`` is the line's place, for messages."""
    try:
        info = parse_json(line)
    except ValueError as error:
        # simuleval buffers its log: a kill truncates it anywhere, and a resumed run appends to the incomplete line
        raise ValueError(
            f"{where} is truncated or not JSON ({error}): delete the line, then translate its sentence again "
            "(the last sentence: simuleval --continue-unfinished)"
        ) from error
    if not isinstance(info, dict):
        raise ValueError(f"{where} is not a sentence of simuleval ({line[:40]!r}): give its {LOG_NAME}")
    missing = [key for key in _NEEDED if key not in info]
    if missing:
        raise ValueError(f"{where} has no {missing[0]!r}: {_AGAIN}")
    if "durations" in info:
        raise ValueError(
            f"{where} is from a speech-to-speech run (it has 'durations'): give the log of a speech-to-text run"
        )
    _check_types(where, info)
    instance = _instance(info, unit)
    _check(where, instance, unit)
    return instance


def _instance(info: dict[str, Any], unit: str) -> Instance:
    """Return the sentence of a line's values; units are split and counted as in SimulEval, to match its delays."""
    prediction, reference = info["prediction"], info["reference"]
    source = info.get("source") or ()
    return Instance(
        index=info["index"],
        units=tuple(prediction.split() if unit == "word" else prediction.replace(" ", "")),
        delays=tuple(map(float, info["delays"])),
        elapsed=tuple(map(float, info.get("elapsed") or ())),
        prediction=prediction,
        reference=reference,
        reference_length=len(reference.split(" ") if unit == "word" else reference.strip()),
        source_length=float(info["source_length"]),
        source=(source,) if isinstance(source, str) else tuple(map(str, source)),
    )


def _check_types(where: str, info: dict[str, Any]) -> None:
    """Check that the values of a line have the types and ranges of SimulEval's."""
    types: tuple[tuple[str, type], ...] = (("index", int), ("prediction", str), ("reference", str))
    for key, expected in types:
        if not isinstance(info[key], expected) or isinstance(info[key], bool):
            raise ValueError(f"{where}: {key!r} is not of type {expected.__name__} ({info[key]!r}): {_AGAIN}")
    for key in ("delays", "elapsed"):
        times = info.get(key) or []
        if not isinstance(times, list) or not all(_is_time(time) for time in times):
            raise ValueError(f"{where}: {key!r} is not a list of times in ms ({repr(times)[:40]}): {_AGAIN}")
    if not _is_time(info["source_length"]) or (info["source_length"] == 0 and info["prediction"].strip()):
        raise ValueError(f"{where}: the source has no length ({info['source_length']!r} ms): delete the line")


def _is_time(value: Any) -> bool:
    """Tell whether a value is a finite number of at least 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _check(where: str, instance: Instance, unit: str) -> None:
    """Check that times belong to the units, never decrease, and that computing takes no negative time."""
    units, delays, elapsed = len(instance.units), instance.delays, instance.elapsed
    if len(delays) != units:
        raise ValueError(
            f"{where}: the number of delays ({len(delays)}) is not that of {unit}s ({units}): "
            "use the --eval-latency-unit of the run"
        )
    if elapsed and len(elapsed) != units:
        raise ValueError(
            f"{where}: the number of elapsed times ({len(elapsed)}) is not that of {unit}s ({units}): {_AGAIN}"
        )
    for name, times in (("delays", delays), ("elapsed times", elapsed)):
        for earlier, later in pairwise(times):
            if later < earlier:
                raise ValueError(f"{where}: the {name} decrease ({earlier:g} to {later:g} ms): {_AGAIN}")
    # elapsed is empty, or as long as delays
    for measured, delay in zip(elapsed, delays, strict=False):
        if measured < delay:
            raise ValueError(
                f"{where}: an elapsed time is below its delay ({measured:g} < {delay:g} ms), "
                f"the clock was set back: {_AGAIN}"
            )
