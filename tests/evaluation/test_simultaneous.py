"""Scores of a log, and of a run of SimulEval on two sentences."""

import json
from argparse import Namespace

import numpy as np
import pytest
import soundfile

from mla_fairseq.evaluation.instances import read_instances
from mla_fairseq.evaluation.simultaneous import render, score_log, write_scores

EMPTY = {"index": 1, "prediction": "", "delays": [], "elapsed": []}
PERFECT = {"prediction": "drei oder fünf und mehr", "delays": [320.0 * i for i in range(5)], "elapsed": []}
LATENCIES = ("al", "laal", "ap", "dal")


def test_the_scores_of_a_perfect_translation(write_log):
    scores = score_log(write_log(PERFECT))
    assert (scores.bleu, scores.chrf) == pytest.approx((100, 100))
    assert (scores.al, scores.laal, scores.dal, scores.ap) == pytest.approx((0, 0, 0, 0.4))
    assert (scores.sentences, scores.empty, scores.mean_words, scores.mean_reference_words) == (1, 0, 5, 5)
    assert "tok:13a" in scores.bleu_signature
    assert "unit:word" in scores.latency_signature


def test_computation_aware_scores_use_elapsed_times(write_log):
    scores = score_log(write_log({}))
    shifted = score_log(write_log({"delays": [600.0, 900.0, 1700.0, 1700.0], "elapsed": []}))
    for name in LATENCIES:
        assert getattr(scores, f"{name}_ca") == pytest.approx(getattr(shifted, name))
        assert getattr(scores, f"{name}_ca") > getattr(scores, name)
        assert getattr(shifted, f"{name}_ca") is None


def test_the_mean_is_over_sentences(write_log):
    late = {"index": 1, "delays": [1600.0] * 4, "elapsed": [1600.0] * 4}
    one, other, both = (score_log(write_log(*lines)) for lines in ([{}], [late], [{}, late]))
    for name in LATENCIES:
        assert getattr(both, name) == pytest.approx((getattr(one, name) + getattr(other, name)) / 2)


def test_an_empty_translation_lowers_quality_but_has_no_latency(write_log):
    alone, both = score_log(write_log(PERFECT)), score_log(write_log(PERFECT, EMPTY))
    assert [getattr(both, name) for name in LATENCIES] == [getattr(alone, name) for name in LATENCIES]
    assert (both.sentences, both.empty, both.mean_words) == (2, 1, 2.5)
    assert both.bleu < alone.bleu
    assert both.chrf < alone.chrf


def test_only_empty_translations_give_no_nan(write_log, tmp_path):
    scores = score_log(write_log(EMPTY))
    assert scores.bleu == 0
    assert all(getattr(scores, f"{name}{tail}") is None for name in LATENCIES for tail in ("", "_ca"))
    write_scores(tmp_path / "out" / "scores.json", {"run": scores})
    text = (tmp_path / "out" / "scores.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["run"]["al"] is None
    assert "nan" not in render({"run": scores}).lower()


def test_case_and_tokeniser_are_options(write_log):
    log = write_log({**PERFECT, "prediction": "Drei Oder Fünf Und Mehr"})
    assert score_log(log).bleu < score_log(log, lowercase=True).bleu
    assert "tok:char" in score_log(log, tokenize="char").bleu_signature


def test_the_table_has_a_row_for_each_log_and_each_signature_once(write_log):
    row = score_log(write_log({}))
    lines = render({"k3": row, "k5": row}).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:4]]
    assert len({len(line) for line in cells}) == 1
    table = dict(zip(cells[0], cells[2], strict=True))
    assert table["AL"] == f"{row.al:.0f}"
    assert table["AP_CA"] == f"{row.ap_ca:.3f}"
    assert table["sentences"] == "1"
    assert [line[0] for line in cells[2:]] == ["k3", "k5"]
    assert sum("BLEU: `" in line for line in lines) == 1


@pytest.fixture
def simuleval_run(tmp_path):
    """A run of SimulEval on two tones; its agent emits a word every 280 ms, and two at the end."""
    from simuleval.agents import SpeechToTextAgent
    from simuleval.agents.actions import ReadAction, WriteAction
    from simuleval.data.dataloader.s2t_dataloader import SpeechToTextDataloader
    from simuleval.evaluator.evaluator import SentenceLevelEvaluator
    from simuleval.evaluator.scorers.latency_scorer import LATENCY_SCORERS_DICT

    class Agent(SpeechToTextAgent):
        def policy(self):
            if self.states.source_finished:
                return WriteAction("zum Ende", finished=True)
            return WriteAction("Wort", finished=False) if len(self.states.source) > 9000 else ReadAction()

    sources = []
    for index, seconds in enumerate((1.3, 0.2)):
        sources.append(str(tmp_path / f"{index}.wav"))
        soundfile.write(sources[-1], np.sin(np.arange(int(seconds * 16000)) / 9).astype("float32"), 16000)
    args = Namespace(
        output=str(tmp_path / "simuleval"), score_only=False, no_scoring=True, source_segment_size=280,
        source_type="speech", target_type="text", eval_latency_unit="word", continue_unfinished=False,
        no_progress_bar=True, start_index=0, end_index=-1,
    )  # fmt: skip
    scorers = {name: LATENCY_SCORERS_DICT[name.upper()]() for name in LATENCIES}
    loader = SpeechToTextDataloader(sources, ["ein Wort und noch ein Wort", "kurz"])
    loader.tgt_lang_list = [None, None]
    evaluator = SentenceLevelEvaluator(loader, {}, scorers, args)
    evaluator(Agent())
    return args.output, evaluator


def test_the_log_of_a_run_gives_the_scores_of_simuleval(simuleval_run):
    folder, evaluator = simuleval_run
    first, second = read_instances(folder)
    assert first.units == ("Wort", "Wort", "zum", "Ende")
    assert first.delays == (840.0, 1120.0, 1300.0, 1300.0)
    assert first.source[0].endswith("0.wav")
    assert (second.units, second.delays) == (("zum", "Ende"), (200.0, 200.0))
    scores = score_log(folder)
    assert {name: getattr(scores, name) for name in LATENCIES} == pytest.approx(evaluator.latency)


def test_a_talk_that_is_scored_as_a_sentence_is_reported(write_log, caplog):
    score_log(write_log({}, {"index": 3, "source_length": 61_000.0}))
    assert "1 of 2 sources are longer than a minute (index 3: 61 s)" in caplog.text
    assert "score whole recordings with mla-evaluate --long-form" in caplog.text
    caplog.clear()
    score_log(write_log({"source_length": 60_000.0}))
    assert not caplog.text
