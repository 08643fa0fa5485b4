"""Scores of simultaneous translation: quality and latency of a whole test set, from SimulEval's log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from mla_fairseq.evaluation.instances import Instance, read_instances
from mla_fairseq.evaluation.latency import METRICS, Metric
from mla_fairseq.evaluation.offline import score
from mla_fairseq.files import write_json

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
    """What a test set scored.

    AL, LAAL and DAL are ms, AP is a ratio; each is the mean over the sentences that have at least one word, as in
    SimulEval: an empty translation has no latency, but costs BLEU and chrF.  ``empty`` counts them: a latency with many
    of them means little.  A latency is None where all are empty, a computation-aware one also where the log does not
    hold ``elapsed`` for every word.

    Attributes:
        bleu, chrf: corpus scores, 0 to 100.
        mean_source_ms: length of the sources.
        mean_words, mean_reference_words: length of translations (empty ones count) and of references, in latency units.
        latency_signature: how the latencies were computed.
    """

    sentences: int
    empty: int
    bleu: float
    chrf: float
    al: float | None
    laal: float | None
    ap: float | None
    dal: float | None
    al_ca: float | None
    laal_ca: float | None
    ap_ca: float | None
    dal_ca: float | None
    mean_source_ms: float
    mean_words: float
    mean_reference_words: float
    bleu_signature: str
    chrf_signature: str
    latency_signature: str


def score_log(
    path: str | Path, tokenize: str = "13a", lowercase: bool = False, unit: str = "word"
) -> SimultaneousScores:
    """Scores a log, or the folder that holds it.

    Args:
        path: ``instances.log`` or its folder.
        tokenize: sacrebleu's tokeniser for BLEU.
        lowercase: BLEU and chrF without case.
        unit: what one delay belongs to: ``word`` or ``char``.

    Raises:
        ValueError: the log cannot be used; see ``read_instances``.
    """
    return score_instances(read_instances(path, unit), tokenize, lowercase, unit)


def score_instances(
    instances: Sequence[Instance], tokenize: str = "13a", lowercase: bool = False, unit: str = "word"
) -> SimultaneousScores:
    """Scores sentences; see ``score_log``.

    Raises:
        ValueError: there is none.
    """
    if not instances:
        raise ValueError("no sentence to score.")
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


def latencies(instances: Iterable[Instance]) -> dict[str, float | None]:
    """``al``, ``laal``, ``ap``, ``dal`` and their ``_ca`` twins, as means over the sentences that have words."""
    spoken = [instance for instance in instances if instance.units]
    timed = spoken if all(instance.elapsed for instance in spoken) else []
    plain = {name: _mean(metric, [(one.delays, one) for one in spoken]) for name, metric in METRICS.items()}
    aware = {f"{name}_ca": _mean(metric, [(one.elapsed, one) for one in timed]) for name, metric in METRICS.items()}
    return {**plain, **aware}


def _mean(metric: Metric, timings: list[tuple[Sequence[float], Instance]]) -> float | None:
    if not timings:
        return None
    return fmean(metric(times, one.source_length, one.reference_length) for times, one in timings)


def write_scores(path: str | Path, scores: Mapping[str, SimultaneousScores]) -> None:
    """Writes the scores of named logs as JSON."""
    write_json(Path(path), {name: asdict(score) for name, score in scores.items()})


def render(scores: Mapping[str, SimultaneousScores]) -> str:
    """A markdown table with a row for each named log; below it units and signatures."""
    titles = [title for title, _ in _COLUMNS.values()]
    lines = [_line(["", *titles]), _line(["---", *["---:"] * len(titles)])]
    lines += [_line([name, *_cells(asdict(row))]) for name, row in scores.items()]
    notes = {
        "AL, LAAL and DAL in ms, AP as a ratio; _CA: computation-aware; - : not measured": None,
        **{f"BLEU: `{row.bleu_signature}`": None for row in scores.values()},
        **{f"chrF: `{row.chrf_signature}`": None for row in scores.values()},
        **{f"latency: `{row.latency_signature}`": None for row in scores.values()},
    }
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Mapping[str, float | None]) -> list[str]:
    return ["-" if row[key] is None else format(row[key], style) for key, (_, style) in _COLUMNS.items()]
