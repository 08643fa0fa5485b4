r"""Compute the latency of one simultaneous translation from its delays.

In all functions ``delays`` gives for each word how much of the source, in ms, had been read when it was emitted (d_i, i
from 1; never decreasing). ``source_length`` is |X| in ms, ``reference_length`` is |Y*| in words, and ``len(delays)`` is
|Y|. For speech the source is measured in time, not in words (Ma et al. 2020, arXiv 2011.02048).

The **computation-aware** metrics (AL_CA and so on) are the same functions of ``elapsed``: the times at which the words
appeared, including computing time (Ma et al. 2020).

SimulEval 1.1.4 computes the same values (but not YAAL), with one exception: under ``--computation-aware`` it computes
also the plain columns from ``elapsed``, so that its AL equals AL_CA. Its ``instances.log`` is correct in both cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Metric = Callable[[Sequence[float], float, int], float | None]


def average_lagging(delays: Sequence[float], source_length: float, reference_length: int) -> float:
    """Return AL in ms: the mean lag behind a translator that emits the reference evenly along the source.

    Ma et al. 2019, STACL (arXiv 1810.08398), Average Lagging; for speech Ma et al. 2020 (arXiv 2011.02048):
    AL = 1/tau sum_{i=1..tau} d_i - (i - 1) |X| / |Y*|, tau = the first i with d_i >= |X|, or |Y| if there is none.
    If the first delay is after the end of the source (possible for ``elapsed`` only), it is the result.

    Raises:
        ValueError: no word, or a length that is not positive.
    """
    _check(delays, source_length, reference_length)
    return _lagging(delays, source_length, source_length / reference_length)


def length_adaptive_average_lagging(delays: Sequence[float], source_length: float, reference_length: int) -> float:
    """Return LAAL in ms: AL without its reward for more words than the reference has.

    Papi et al. 2022 (arXiv 2206.05807), Length-Adaptive Average Lagging: AL with |X| / max(|Y|, |Y*|) for |X| / |Y*|.

    Raises:
        ValueError: no word, or a length that is not positive.
    """
    _check(delays, source_length, reference_length)
    return _lagging(delays, source_length, source_length / max(len(delays), reference_length))


def average_proportion(delays: Sequence[float], source_length: float, reference_length: int) -> float:
    """Return AP, a ratio: the mean fraction of the source that had been read.

    Cho & Esipova 2016 (arXiv 1606.02012), Average Proportion: AP = sum_i d_i / (|X| |Y*|).
    The paper divides by |Y|; this function divides by |Y*|, as SimulEval does, so that AP can be above 1 if the
    translation is longer than the reference.

    Raises:
        ValueError: no word, or a length that is not positive.
    """
    _check(delays, source_length, reference_length)
    return sum(delays) / (source_length * reference_length)


def differentiable_average_lagging(delays: Sequence[float], source_length: float) -> float:
    """Return DAL in ms: AL over all words, where each word takes time, so that a lag is never recovered.

    Cherry & Foster 2019 (arXiv 1906.00048), Differentiable Average Lagging, as in Arivazhagan et al. 2019
    (arXiv 1906.05218): DAL = 1/|Y| sum_i d'_i - (i - 1) / gamma with gamma = |Y| / |X|, d'_1 = d_1,
    d'_i = max(d_i, d'_{i-1} + 1 / gamma).

    Raises:
        ValueError: no word, or a length that is not positive.
    """
    _check(delays, source_length, len(delays))
    step = source_length / len(delays)
    total, adjusted = 0.0, -step
    for i, delay in enumerate(delays):
        adjusted = max(delay, adjusted + step)
        total += adjusted - i * step
    return total / len(delays)


def yet_another_average_lagging(delays: Sequence[float], source_length: float, reference_length: int) -> float | None:
    """Return YAAL in ms: LAAL over the words emitted before the end of the source; ``None`` if there is none.

    Polák et al. 2025 (arXiv 2509.17349), Yet Another Average Lagging. Words that a system emits when the source has
    ended tell nothing about its policy, and LAAL takes one of them.

    Raises:
        ValueError: no word, or a length that is not positive.
    """
    _check(delays, source_length, reference_length)
    early = [delay for delay in delays if delay < source_length]
    step = source_length / max(len(delays), reference_length)
    return sum(delay - i * step for i, delay in enumerate(early)) / len(early) if early else None


METRICS: dict[str, Metric] = {
    "al": average_lagging,
    "laal": length_adaptive_average_lagging,
    "ap": average_proportion,
    "dal": lambda delays, source_length, _: differentiable_average_lagging(delays, source_length),
    "yaal": yet_another_average_lagging,
}
"""Metrics by name; all take (delays, source length, reference length)."""


def _lagging(delays: Sequence[float], source_length: float, step: float) -> float:
    """Return the mean lag behind one word every ``step`` ms, up to the first word after the whole source was read."""
    if delays[0] > source_length:
        return delays[0]
    total = 0.0
    for i, delay in enumerate(delays):
        total += delay - i * step
        if delay >= source_length:  # later words do not wait for speech
            break
    return total / (i + 1)


def _check(delays: Sequence[float], source_length: float, reference_length: int) -> None:
    """Check that the metrics are defined."""
    if not len(delays):  # also of numpy's arrays, which have no truth value
        raise ValueError("a translation of 0 words has no latency: leave it out of the mean")
    if source_length <= 0 or reference_length <= 0:
        raise ValueError(
            f"source or reference is empty ({source_length:g} ms, {reference_length} words): leave the sentence out"
        )
