"""Latency metrics: against values by hand, their invariants, and SimulEval's metrics."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simuleval.evaluator.instance import LogInstance
from simuleval.evaluator.scorers.latency_scorer import LATENCY_SCORERS_DICT

from mla_fairseq.evaluation.latency import METRICS

SOURCE = 1000.0


@pytest.mark.parametrize(
    ("metric", "delays", "reference_length", "expected"),
    [
        # the ideal translator: one word every 250 ms, from 0
        pytest.param("al", [0, 250, 500, 750], 4, 0.0, id="al-ideal"),
        pytest.param("laal", [0, 250, 500, 750], 4, 0.0, id="laal-ideal"),
        pytest.param("dal", [0, 250, 500, 750], 4, 0.0, id="dal-ideal"),
        pytest.param("ap", [0, 250, 500, 750], 4, 0.375, id="ap-ideal"),
        # offline: everything at the end; AL and LAAL use only the first word, DAL spreads the words
        pytest.param("al", [1000] * 4, 4, 1000.0, id="al-offline"),
        pytest.param("laal", [1000] * 4, 4, 1000.0, id="laal-offline"),
        pytest.param("dal", [1000] * 4, 4, 1000.0, id="dal-offline"),
        pytest.param("ap", [1000] * 4, 4, 1.0, id="ap-offline"),
        # (500 + 750 - 250 + 1000 - 500) / 3: the third word comes after the whole source, the last is not counted
        pytest.param("al", [500, 750, 1000, 1000], 4, 500.0, id="al-stops-at-the-end-of-the-source"),
        # AL rewards eight words for a reference of four, LAAL does not: (500 - 0 + ... + 1000 - 4 * 125) / 5
        pytest.param("al", [500, 625, 750, 875, 1000, 1000, 1000, 1000], 4, 250.0, id="al-too-long"),
        pytest.param("laal", [500, 625, 750, 875, 1000, 1000, 1000, 1000], 4, 500.0, id="laal-too-long"),
        # d' = 900, 1150, 1400, 1650: the lag of the first word is never recovered
        pytest.param("dal", [900, 900, 900, 900], 4, 900.0, id="dal-lost-time"),
        pytest.param("ap", [500, 1000], 4, 0.375, id="ap-divides-by-the-reference"),
        pytest.param("al", [1300, 1400], 2, 1300.0, id="al-begins-after-the-source"),
        pytest.param("yaal", [0, 250, 500, 750], 4, 0.0, id="yaal-ideal"),
        # (500 + 750 - 250) / 2: words at the end of the source do not count
        pytest.param("yaal", [500, 750, 1000, 1000], 4, 500.0, id="yaal-stops-before-the-end-of-the-source"),
        pytest.param("yaal", [500, 750, 1000, 1000], 8, 562.5, id="yaal-too-short"),
        pytest.param("yaal", [1000] * 4, 4, None, id="yaal-offline"),
    ],
)
def test_by_hand(metric, delays, reference_length, expected):
    assert METRICS[metric](delays, SOURCE, reference_length) == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("delays", "source", "words"), [([], 9.0, "of 0 words"), ([1.0], 0.0, "source or reference is empty")]
)
def test_an_empty_translation_or_source_is_refused(metric, delays, source, words):
    with pytest.raises(ValueError, match=words):
        METRICS[metric](delays, source, 3)


@st.composite
def sentences(draw, computing: bool = True) -> dict:
    """Draw a line of the log: increasing delays up to the source's length, and computing time that never decreases."""
    samples = draw(st.integers(1, 500_000))
    words = draw(st.integers(1, 30))
    reads = sorted(draw(st.lists(st.integers(0, samples), min_size=words, max_size=words)))
    # most words of short sources are emitted at the end
    delays = [(samples if draw(st.booleans()) else read) * 1000 / 16000 for read in reads]
    delays.sort()
    spent = sorted(draw(st.lists(st.floats(0, 5000), min_size=words, max_size=words)))
    return {
        "index": 0,
        "prediction": " ".join(["w"] * words),
        "delays": delays,
        "elapsed": [delay + time for delay, time in zip(delays, spent, strict=True)],
        "reference": " ".join(["r"] * draw(st.integers(1, 40))),
        "source_length": samples * 1000 / 16000,
    }


@given(line=sentences())
@pytest.mark.parametrize("aware", [False, True], ids=["plain", "computation-aware"])
@pytest.mark.parametrize("metric", sorted(METRICS.keys() - {"yaal"}))
def test_as_simuleval(metric, aware, line):
    scorer = LATENCY_SCORERS_DICT[metric.upper()](computation_aware=aware)
    expected = scorer({0: LogInstance(json.dumps(line))})
    times = line["elapsed" if aware else "delays"]
    found = METRICS[metric](times, line["source_length"], len(line["reference"].split()))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(line=sentences(), later=st.floats(0.001, 1000))
@pytest.mark.parametrize("metric", METRICS)
def test_waiting_never_lowers_a_mean_over_all_words(metric, line, later):
    """AL, LAAL and YAAL average up to the end of the source, so this holds for them only if no word reaches it."""
    delays, source = line["delays"], line["source_length"]
    if metric in ("al", "laal", "yaal"):
        source += delays[-1] + 2000
    delayed = [delay + later for delay in delays]
    assert METRICS[metric](delayed, source, 7) >= METRICS[metric](delays, source, 7) - 1e-6


@given(line=sentences())
def test_laal_is_not_lowered_by_long_translations(line):
    words, references = len(line["delays"]), len(line["reference"].split())
    al, laal = (METRICS[name](line["delays"], line["source_length"], references) for name in ("al", "laal"))
    assert laal == pytest.approx(al) if words <= references else laal >= al - 1e-6


def test_computation_aware_simuleval_reports_al_ca_as_al():
    """This is why the latencies are computed from the log; see the note in latency.py."""
    from argparse import Namespace

    line = {"prediction": "a", "delays": [100.0], "elapsed": [400.0], "reference": "b", "source_length": SOURCE}
    args = Namespace(computation_aware=True, no_use_ref_len=False)
    scorer = LATENCY_SCORERS_DICT["AL"].from_args(args)
    assert scorer({0: LogInstance(json.dumps({"index": 0, **line}))}) == 400.0
    assert METRICS["al"](line["delays"], SOURCE, 1) == 100.0
