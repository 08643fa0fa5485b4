"""Score simultaneous translation: quality and latency of a test set, from SimulEval's log."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mla_fairseq.evaluation.instances import Instance, read_instances
from mla_fairseq.evaluation.latency import METRICS, Metric
from mla_fairseq.evaluation.offline import score
from mla_fairseq.files import write_json

log = logging.getLogger(__name__)
_LONG_MS = 60_000
_COLUMNS = {
    "bleu": ("BLEU", ".2f"),
    "chrf": ("chrF", ".2f"),
    **{f"{name}{tail}": (f"{name}{tail}".upper(), ".3f" if name == "ap" else ".0f")
       for tail in ("", "_ca") for name in METRICS},
    "sentences": ("sentences", "d"),
    "empty": ("empty", "d"),
}  # fmt: skip


@dataclass(frozen=True)
class SimultaneousScores:
    """Scores of a test set.

    AL, LAAL, DAL and YAAL are in ms, AP is a ratio. Each is the mean over the sentences with at least one word, as in
    SimulEval: an empty translation has no latency, but lowers BLEU and chrF. YAAL is the mean over those with a word
    before the end of the source, as in OmniSTEval. A latency is ``None`` if there is no such sentence; a
    computation-aware one also if the log lacks ``elapsed``.

    Attributes:
        sentences: number of sentences.
        empty: number of empty translations; if it is large, the latencies mean little.
        bleu, chrf: corpus scores, 0 to 100.
        al, laal, ap, dal, yaal: latencies; ``_ca``: computation-aware.
        mean_source_ms: mean length of the sources.
        mean_words, mean_reference_words: mean length of translations (including empty ones) and references, in units.
        bleu_signature, chrf_signature, latency_signature: how the scores were computed.
    """

    sentences: int
    empty: int
    bleu: float
    chrf: float
    al: float | None
    laal: float | None
    ap: float | None
    dal: float | None
    yaal: float | None
    al_ca: float | None
    laal_ca: float | None
    ap_ca: float | None
    dal_ca: float | None
    yaal_ca: float | None
    mean_source_ms: float
    mean_words: float
    mean_reference_words: float
    bleu_signature: str
    chrf_signature: str
    latency_signature: str


def score_log(
    path: str | Path, tokenize: str = "13a", lowercase: bool = False, unit: str = "word"
) -> SimultaneousScores:
    """Score a log.

    Args:
        path: ``instances.log`` or its folder.
        tokenize: sacrebleu's tokeniser for BLEU.
        lowercase: ignore case in BLEU and chrF.
        unit: the unit of a delay: ``word`` or ``char``.

    Raises:
        ValueError: the log cannot be used; see ``read_instances``.
    """
    return score_instances(read_instances(path, unit), tokenize, lowercase, unit)


def score_instances(
    instances: Sequence[Instance], tokenize: str = "13a", lowercase: bool = False, unit: str = "word"
) -> SimultaneousScores:
    """Score sentences; see ``score_log`` for the arguments.

    Raises:
        ValueError: no sentence.
    """
    if not instances:
        raise ValueError("no sentence to score: give at least one")
    _warn_of_long_sources(instances)
    references = [instance.reference for instance in instances]
    quality = score([instance.prediction for instance in instances], references, tokenize, lowercase)
    return SimultaneousScores(
        sentences=len(instances),
        empty=sum(not instance.units for instance in instances),
        bleu=quality.bleu,
        chrf=quality.chrf,
        **latencies(instances),
        mean_source_ms=fmean(instance.source_length for instance in instances),
        mean_words=fmean(len(instance.units) for instance in instances),
        mean_reference_words=fmean(instance.reference_length for instance in instances),
        bleu_signature=quality.bleu_signature,
        chrf_signature=quality.chrf_signature,
        latency_signature=f"unit:{unit}|length:reference|empty:skipped|like:SimulEval-1.1.4",
    )


def _warn_of_long_sources(instances: Sequence[Instance]) -> None:
    """Warn if sources are longer than a minute: the latencies of a talk are not those of a sentence."""
    long = [instance for instance in instances if instance.source_length > _LONG_MS]
    if long:
        log.warning(
            "%d of %d sources are longer than a minute (index %d: %.0f s) and were scored as one sentence each: "
            "score whole recordings with mla-evaluate --long-form",
            len(long),
            len(instances),
            long[0].index,
            long[0].source_length / 1000,
        )


def latencies(instances: Iterable[Instance]) -> dict[str, float | None]:
    """Return the metrics by name, and the same with ``_ca``, as means over the sentences with words."""
    emitted = [instance for instance in instances if instance.units]
    # a mean over the measured sentences only would not be comparable with the plain latency
    timed = emitted if all(instance.elapsed for instance in emitted) else []
    plain = {name: _mean(metric, [(one.delays, one) for one in emitted]) for name, metric in METRICS.items()}
    aware = {f"{name}_ca": _mean(metric, [(one.elapsed, one) for one in timed]) for name, metric in METRICS.items()}
    return {**plain, **aware}


def _mean(metric: Metric, timings: list[tuple[Sequence[float], Instance]]) -> float | None:
    """Return the mean of a metric over the (times, sentence) pairs for which it is defined; ``None`` if none is."""
    values = [metric(times, one.source_length, one.reference_length) for times, one in timings]
    defined = [value for value in values if value is not None]
    return fmean(defined) if defined else None


def write_scores(path: str | Path, scores: Mapping[str, Any]) -> None:
    """Write the scores of named logs, which are dataclasses, as JSON."""
    write_json(Path(path), {name: asdict(score) for name, score in scores.items()})


def render(scores: Mapping[str, SimultaneousScores]) -> str:
    """Return a markdown table with a row for each named log, followed by units and signatures."""
    return render_table(
        scores, _COLUMNS, "AL, LAAL, DAL and YAAL: in ms; AP: a ratio; _CA: computation-aware; -: not measured"
    )


def render_table(scores: Mapping[str, Any], columns: Mapping[str, tuple[str, str]], units: str) -> str:
    """Return a markdown table with a row for each named log, followed by notes.

    Args:
        scores: dataclasses with a field for each column, and with signatures.
        columns: title and format of each field.
        units: the first note.
    """
    notes = {
        units: None,
        **{f"BLEU: `{row.bleu_signature}`": None for row in scores.values()},
        **{f"chrF: `{row.chrf_signature}`": None for row in scores.values()},
        **{f"latency: `{row.latency_signature}`": None for row in scores.values()},
    }
    return "\n".join([*table_lines(scores, columns), "", *(f"- {note}" for note in notes)]) + "\n"


def table_lines(rows: Mapping[str, Any], columns: Mapping[str, tuple[str, str]], name: str = "") -> list[str]:
    """Return the lines of a markdown table.

    Args:
        rows: a dataclass with a field for each column, by the text of its first cell.
        columns: title and format of each field; ``None`` is shown as a dash.
        name: title of the first column.
    """
    titles = [title for title, _ in columns.values()]
    lines = [_line([name, *titles]), _line(["---", *["---:"] * len(titles)])]
    return lines + [_line([first, *_cells(asdict(row), columns)]) for first, row in rows.items()]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Mapping[str, float | None], columns: Mapping[str, tuple[str, str]]) -> list[str]:
    return ["-" if row[key] is None else format(row[key], style) for key, (_, style) in columns.items()]
