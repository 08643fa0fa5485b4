"""Reads the ``instances.log`` of SimulEval 1.1.4: what was written of each sentence, and when."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

LOG_NAME = "instances.log"
UNITS = ("word", "char")
_NEEDED = ("index", "prediction", "delays", "reference", "source_length")
_AGAIN = "run SimulEval again into a fresh --output folder"


@dataclass(frozen=True)
class Instance:
    """One sentence.  All times are milliseconds from the start of its audio.

    Attributes:
        index: row of the test set.
        units: the translation's words (or characters), in the order in which they were written.
        delays: how much of the source had been read when each unit was written; one per unit, never falling.
        elapsed: the same with the time that computing took, so never before ``delays``; empty where nobody measured.
        prediction: the translation as text.
        reference: the reference as text.
        reference_length: units of the reference, counted as SimulEval counts them.
        source_length: length of the source.
        source: what the log says about the source; the path of the audio comes first.
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
        """What stands between two units of the prediction."""
        return " " if len(self.prediction.split()) == len(self.units) else ""


def find_log(path: str | Path) -> Path:
    """The log itself; of a folder (``simuleval --output``), the log in it.

    Raises:
        ValueError: there is none.
    """
    path = Path(path)
    log = path / LOG_NAME if path.is_dir() else path
    if not log.is_file():
        raise ValueError(f"{log} does not exist; simuleval writes it into its --output folder.")
    return log


def read_instances(path: str | Path, unit: str = "word") -> list[Instance]:
    """All sentences of a log, ordered by index.

    Args:
        path: the log, or the folder that holds it.
        unit: what one delay belongs to: ``word`` or ``char``, as in ``simuleval --eval-latency-unit``.

    Raises:
        ValueError: no log, no sentence in it, an unknown unit, or a line that is cut off, of a speech-to-speech run,
            or contradicts itself or another line.
    """
    if unit not in UNITS:
        raise ValueError(f"the latency unit is {unit!r}, but must be one of {', '.join(UNITS)}.")
    path = find_log(path)
    found: dict[int, tuple[str, Instance]] = {}
    for where, line in _lines(path):
        instance = _parse(where, line, unit)
        if instance.index in found:
            earlier = found[instance.index][0].rpartition(" ")[2]
            raise ValueError(f"{where} repeats index {instance.index} of line {earlier}; delete one of the two lines.")
        found[instance.index] = where, instance
    if not found:
        raise ValueError(f"{path} holds no sentence; simuleval fills it as it runs.")
    return [found[index][1] for index in sorted(found)]


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Where each line stands, for messages, and the line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error}); it is no log of simuleval.") from error
    yield from ((f"{path} line {number}", line) for number, line in enumerate(lines, start=1) if line.strip())


def _parse(where: str, line: str, unit: str) -> Instance:
    try:
        info = json.loads(line)
    except json.JSONDecodeError as error:
        # simuleval buffers its log: a kill cuts it anywhere, and a continued run goes on in the middle of the line
        raise ValueError(
            f"{where} is cut off or not JSON ({error.msg}); delete the line, then translate its sentence again "
            "(where it is the last one: simuleval --continue-unfinished)."
        ) from error
    if not isinstance(info, dict):
        raise ValueError(f"{where} is no sentence of simuleval, but {line[:40]!r}; name its {LOG_NAME}.")
    missing = [key for key in _NEEDED if key not in info]
    if missing:
        raise ValueError(f"{where} has no {missing[0]!r}; {_AGAIN}.")
    if "durations" in info:
        raise ValueError(f"{where} is of a speech-to-speech run; only written translations can be scored.")
    _check_types(where, info)
    instance = _instance(info, unit)
    _check(where, instance, unit)
    return instance


def _instance(info: dict[str, Any], unit: str) -> Instance:
    """Units are cut, and those of the reference counted, in SimulEval's own way: that is what its delays belong to."""
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
    for key, kind in (("index", int), ("prediction", str), ("reference", str)):
        if not isinstance(info[key], kind) or isinstance(info[key], bool):
            raise ValueError(f"{where}: {key!r} is {info[key]!r}, but must be {kind.__name__}; {_AGAIN}.")
    for key in ("delays", "elapsed"):
        times = info.get(key) or []
        if not isinstance(times, list) or not all(_is_time(time) for time in times):
            raise ValueError(f"{where}: {key!r} must be a list of milliseconds from 0 on; {_AGAIN}.")
    if not _is_time(info["source_length"]) or (info["source_length"] == 0 and info["prediction"].strip()):
        raise ValueError(f"{where}: the source is {info['source_length']!r} ms long; leave this sentence out.")


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _check(where: str, instance: Instance, unit: str) -> None:
    units, delays, elapsed = len(instance.units), instance.delays, instance.elapsed
    if len(delays) != units:
        raise ValueError(
            f"{where}: {len(delays)} delays for {units} {unit}s; was it written with another --eval-latency-unit?"
        )
    if elapsed and len(elapsed) != units:
        raise ValueError(f"{where}: {len(elapsed)} elapsed times for {units} {unit}s; {_AGAIN}.")
    for name, times in (("delays", delays), ("elapsed times", elapsed)):
        for earlier, later in pairwise(times):
            if later < earlier:
                raise ValueError(f"{where}: the {name} fall from {earlier:g} to {later:g} ms; {_AGAIN}.")
    if any(measured < delay for measured, delay in zip(elapsed, delays, strict=False)):
        raise ValueError(
            f"{where}: an elapsed time is below its delay, so the clock was set back during the run; {_AGAIN}."
        )
