"""Find logs by name, sentences by index, and the audio of a sentence."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import soundfile

from mla_fairseq.evaluation.instances import Instance, find_log
from mla_fairseq.evaluation.timeline import Waveform
from mla_fairseq.files import real_path

logger = logging.getLogger(__name__)


def name_logs(paths: Sequence[Path]) -> dict[str, Path]:
    """Return the logs under short names: that of the folder, or the path if two folders have the same name.

    Raises:
        ValueError: a log is missing, or given twice.
    """
    logs = [find_log(path) for path in paths]
    resolved = [real_path(log) for log in logs]
    if twice := next((log for place, log in enumerate(resolved) if log in resolved[:place]), None):
        raise ValueError(f"a log is given twice ({twice}): give it once")
    names = [log.parent.name for log in resolved]
    unique = len(set(names)) == len(names)
    return dict(zip(names if unique else map(str, logs), logs, strict=True))


def find_sentence(instances: Sequence[Instance], index: int, name: str) -> Instance:
    """Return the sentence of a log with this index.

    Args:
        instances: the log's sentences.
        index: row of the test set.
        name: the log's name, for messages.

    Raises:
        ValueError: the log has no such sentence.
    """
    for instance in instances:
        if instance.index == index:
            return instance
    known = f"{instances[0].index} to {instances[-1].index}"
    raise ValueError(f"{name} has no sentence {index} ({len(instances)} sentences, {known}): give another index")


def read_waveform(instance: Instance) -> Waveform | None:
    """Return the audio that the log names; ``None``, with a warning, if it cannot be read here."""
    path = instance.source[0] if instance.source else ""
    try:
        if not Path(path).is_file():  # a pipe would never end
            raise FileNotFoundError
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError, TypeError):
        logger.warning("sentence %d is drawn without its waveform: cannot read %s", instance.index, path or "its audio")
        return None
    return Waveform(samples.mean(axis=1), rate)
