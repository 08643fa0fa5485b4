r"""Latency of one simultaneous translation, from plain numbers.

Everywhere: ``delays`` says for each word how much of the source, in ms, had been read when it was written (d_i, i from
1; never falling); ``source_length`` is |X| in ms; ``reference_length`` is |Y*| in words, ``len(delays)`` is |Y|.
For speech the source is measured in time, not in words, after Ma et al. 2020 (arXiv 2011.02048).

**Computation-aware twins** (AL_CA and so on) are the same functions of ``elapsed`` instead of ``delays``: the moment at
which the word really appeared, computing included (Ma et al. 2020).

SimulEval 1.1.4 gives the same figures, with one exception that lies outside the formulas: under ``--computation-aware``
it reckons the plain columns from ``elapsed`` too, so that its AL is AL_CA.  ``instances.log`` is right either way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Metric = Callable[[Sequence[float], float, int], float]


def average_lagging(delays: Sequence[float], source_length: float, reference_length: int) -> float:
    """AL, in ms: how far the writer is behind one who writes the reference evenly along the source.

    Ma et al. 2019, STACL (arXiv 1810.08398), Average Lagging; for speech Ma et al. 2020 (arXiv 2011.02048):
    AL = 1/tau sum_{i=1..tau} d_i - (i - 1) |X| / |Y*|, tau = the first i with d_i >= |X|, or |Y| if there is none.
    A translation that begins after the end of the source (only ``elapsed`` can) lags by its first delay.

    Raises:
        ValueError: no word, or a length that is not positive.
    """
    _check(delays, source_length, reference_length)
    return _lagging(delays, source_length, source_length / reference_length)


def length_adaptive_average_lagging(delays: Sequence[float], source_length: float, reference_length: int) -> float:
    """LAAL, in ms: AL without its reward for writing more words than the reference has.

    Papi et al. 2022 (arXiv 2206.05807), Length-Adaptive Average Lagging: AL with |X| / max(|Y|, |Y*|) for |X| / |Y*|.

    Raises:
        ValueError: no word, or a length that is not positive.
    """
    _check(delays, source_length, reference_length)
    return _lagging(delays, source_length, source_length / max(len(delays), reference_length))


def average_proportion(delays: Sequence[float], source_length: float, reference_length: int) -> float:
    """AP, a ratio: the mean share of the source that had been read.

    Cho & Esipova 2016 (arXiv 1606.02012), Average Proportion: AP = sum_i d_i / (|X| |Y*|).
    The paper divides by |Y|; SimulEval divides by |Y*|, as here, so that a translation longer than its reference can
    be above 1.

    Raises:
        ValueError: no word, or a length that is not positive.
    """
    _check(delays, source_length, reference_length)
    return sum(delays) / (source_length * reference_length)


def differentiable_average_lagging(delays: Sequence[float], source_length: float) -> float:
    """DAL, in ms: AL over all words, where writing a word takes time, so that lost time is never made good.

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


METRICS: dict[str, Metric] = {
    "al": average_lagging,
    "laal": length_adaptive_average_lagging,
    "ap": average_proportion,
    "dal": lambda delays, source_length, _: differentiable_average_lagging(delays, source_length),
}
"""By name; all take (delays, source length, reference length)."""


def _lagging(delays: Sequence[float], source_length: float, step: float) -> float:
    """Mean lag behind a word every ``step`` ms, up to the first word that saw the whole source."""
    if delays[0] > source_length:
        return delays[0]
    total = 0.0
    for i, delay in enumerate(delays):
        total += delay - i * step
        if delay >= source_length:
            break
    return total / (i + 1)


def _check(delays: Sequence[float], source_length: float, reference_length: int) -> None:
    if not delays:
        raise ValueError("a translation without words has no latency; leave it out of the mean.")
    if source_length <= 0 or reference_length <= 0:
        raise ValueError(
            f"the source is {source_length:g} ms and the reference {reference_length} words long; both must be above 0."
        )
