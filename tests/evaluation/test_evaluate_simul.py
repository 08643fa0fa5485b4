"""``mla-evaluate``."""

import json
import os
import sys

import numpy as np
import pytest
import soundfile

from mla_fairseq.cli.evaluate import build_parser, main
from mla_fairseq.evaluation.quality_latency import read_points


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs the script on arguments in an empty folder; returns what it printed."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*arguments) -> str:
        main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return call


def test_table_and_json_agree(run, write_log, tmp_path):
    logs = [write_log({}, name="k3"), write_log({"delays": [1600.0] * 4, "elapsed": []}, name="k9").parent]
    shown = run(*logs, "--output", tmp_path / "scores.json", "--lowercase", "--tokenize", "intl")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert list(scores) == ["k3", "k9"]
    assert scores["k9"]["al"] == 1600
    assert scores["k9"]["al_ca"] is None
    for name, row in scores.items():
        assert f"| {name} | {row['bleu']:.2f} | {row['chrf']:.2f} | {row['al']:.0f} |" in shown
    assert "case:lc" in scores["k3"]["bleu_signature"]
    assert "tok:intl" in shown


def test_only_the_first_sentences_are_scored(run, write_log):
    """The scores are those of a run of so many sentences."""
    more = write_log({}, {"index": 1, "prediction": "a b c d", "delays": [9, 9, 9, 9]}, name="run")
    few = write_log({}, name="few")
    alone, _, both = (run(*arguments) for arguments in ((few,), (more,), (more, "--first", 1)))
    assert both.replace("run", "few") == alone
    with pytest.raises(SystemExit, match="--first is 0: give at least 1 sentence"):
        run(more, "--first", 0)


def test_logs_become_points(run, write_log, tmp_path):
    logs = [write_log({}, name=name) for name in ("k1", "k3")]
    run(*logs, "--points", tmp_path / "points.tsv", "--system", "wait-k")
    points = read_points(tmp_path / "points.tsv")
    assert [(point.system, point.setting) for point in points] == [("wait-k", "k1"), ("wait-k", "k3")]
    with pytest.raises(SystemExit, match="--points needs the name of the system: add --system NAME"):
        run(logs[0], "--points", tmp_path / "points.tsv")


def test_folders_with_equal_names_are_distinguished(run, write_log, tmp_path):
    logs = [write_log({}, name="a"), write_log({}, name="b")]
    moved = []
    for log in logs:
        moved.append(log.parent / "same" / "instances.log")
        moved[-1].parent.mkdir()
        log.rename(moved[-1])
    shown = run(*moved)
    assert all(f"| {log} |" in shown for log in moved)


def test_pictures_and_transcripts_of_chosen_sentences(run, write_log, tmp_path):
    pytest.importorskip("matplotlib")
    soundfile.write(tmp_path / "a.wav", np.zeros((25600, 2), dtype="float32"), 16000)
    log = write_log({}, {"index": 5, "source": [str(tmp_path / "a.wav")]})
    shown = run(log, "--timeline", 0, 5, "--pictures", tmp_path / "pictures", "--transcript", 5)
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["run-0.png", "run-0.svg", "run-5.png", "run-5.svg"]
    sizes = [(tmp_path / "pictures" / name).stat().st_size for name in ("run-0.svg", "run-5.svg")]
    assert sizes[1] > sizes[0], "the second has a waveform"
    assert "run, sentence 5\n\n   0.56 s  drei" in shown
    assert str(tmp_path / "pictures" / "run-5.svg") in shown


def test_audio_of_another_length_is_refused_unless_it_is_left_out(run, write_log, tmp_path):
    pytest.importorskip("matplotlib")
    soundfile.write(tmp_path / "a.wav", np.zeros(100, dtype="float32"), 16000)
    log = write_log({"source": [str(tmp_path / "a.wav")]})
    with pytest.raises(
        SystemExit, match=r"^error: the audio of sentence 0 \(6 ms\) does not have the length in the log"
    ):
        run(log, "--timeline", 0)
    assert "run-0.png" in run(log, "--timeline", 0, "--no-waveform")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["no"], "no is missing", id="no-log"),
        pytest.param(["LOG", "LOG"], "a log is given twice", id="twice"),
        pytest.param(
            ["LOG", "--timeline", "3"], r"run has no sentence 3 \(1 sentences, 0 to 0\): give another", id="no-sentence"
        ),
        pytest.param(
            ["LOG", "--latency-unit", "char"], r"the number of delays \(4\) is not that of chars \(9\)", id="unit"
        ),
    ],
)
def test_a_fault_is_reported_in_one_line_and_leaves_no_file(run, write_log, tmp_path, arguments, words):
    log = str(write_log({}))
    with pytest.raises(SystemExit, match=f"^error: .*{words}[^\n]*$"):
        run(*(log if argument == "LOG" else argument for argument in arguments), "--output", "scores.json")
    assert list((tmp_path / "here").iterdir()) == []


def test_a_pipe_that_a_log_names_as_its_audio_is_not_read(run, write_log, tmp_path):
    pytest.importorskip("matplotlib")
    os.mkfifo(tmp_path / "pipe.wav")
    log = write_log({"source": [str(tmp_path / "pipe.wav")]})
    run(log, "--timeline", 0, "--pictures", tmp_path / "pictures")
    assert len(list((tmp_path / "pictures").iterdir())) == 2


def test_a_tokeniser_without_its_package_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "MeCab", None)  # as if it were not installed
    with pytest.raises(SystemExit):
        build_parser().parse_args(["log", "--tokenize", "ja-mecab"])
    assert "argument --tokenize: ja-mecab cannot be used (" in capsys.readouterr().err
