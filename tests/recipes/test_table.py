"""The results table."""

import json
from pathlib import Path

import pytest

from mla_fairseq.evaluation.quality_latency import write_points
from mla_fairseq.recipes.table import read_results, render

RESULT = {
    "corpus": "tiny",
    "subset": "tst-COMMON",
    "attention": {"encoder": "relu", "decoder": "softmax", "cross": "softmax"},
    "bleu": 12.345,
    "bleu_signature": "nrefs:1|tok:13a",
    "chrf": 40.0,
    "chrf_signature": "nc:6",
    "parameters": 2506624,
    "updates": 1500,
    "train_words_per_second": 1234.5,
    "train_frames_per_second": 20000,
    "train_minutes": 19.6,
    "decode_words_per_second": None,
    "seed": 1,
    "commit": "abc1234",
    "command": "python scripts/run_recipe.py configs/tiny.yaml",
    "machine": {"device": "cpu", "cpu": "some CPU", "cores": 2, "threads": 1, "torch": "2.13.0"},
}


def folder(path: Path, **changes) -> Path:
    path.mkdir()
    (path / "result.json").write_text(json.dumps({**RESULT, **changes}))
    return path


def rows(table: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]


def test_one_row_per_run_in_the_order_given(tmp_path):
    names = ("b", "a")
    table = render(read_results(folder(tmp_path / name, corpus=name) for name in names))
    assert [row[0] for row in rows(table)[2:]] == ["b, tst-COMMON", "a, tst-COMMON"]
    assert len({len(row) for row in rows(table)}) == 1


def test_simultaneous_runs_have_a_table_of_their_latencies(tmp_path):
    for name in ("offline", "simul"):
        folder(tmp_path / name, corpus=name)
    figures = {"bleu": 9.0, "chrf": 30.0, "al": 1234.5, "laal": 1300.0, "ap": 0.8, "dal": 1500.0, "offline_bleu": 10.0}
    write_points(tmp_path / "simul" / "simul" / "points.tsv", [{"system": "simul", "k": k, **figures} for k in (1, 5)])
    table = render(read_results([tmp_path / "offline", tmp_path / "simul"]))
    last = ["9.0", "30.0", "1,234", "1,300", "0.80", "1,500", "90%"]
    assert [row for row in rows(table) if row[0] == "simul, tst-COMMON"][1:] == [
        ["simul, tst-COMMON", "relu / softmax / softmax", k, *last] for k in ("1", "5")
    ]
    assert table.count("offline, tst-COMMON") == 1
    assert "k and the whole source with beam 1" in table


def test_a_row_shows_rounded_figures_and_a_dash_for_none(tmp_path):
    row = rows(render(read_results([folder(tmp_path / "a")])))[2]
    assert row[1:] == [
        "relu / softmax / softmax",
        "12.3",
        "40.0",
        "2.51 M",
        "1,500",
        "1,234",
        "20,000",
        "20",
        "-",
    ]


VOICE = {
    **{key: value for key, value in RESULT.items() if not key.startswith(("bleu", "chrf"))},
    "kind": "speech",
    "name": "voice",
    "subset": "test",
    "mcd": 4.321,
    "forced_mcd": 2.0,
    "duration_error": 0.126,
    "ended": 0.9,
    "real_time_factor": 0.1234,
}


def test_voices_have_a_table_of_their_own(tmp_path):
    heard = {"word_error_rate": 12.34, "recorded_word_error_rate": 5.0}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "result.json").write_text(json.dumps(VOICE | heard))
    table = render(read_results([folder(tmp_path / "a"), tmp_path / "b"]))
    figures = ["2.00", "4.32", "13%", "90%", "2.51 M", "1,500", "20,000", "20", "0.123"]
    assert rows(table)[-1] == ["tiny, test", "relu / softmax / softmax", *figures]
    assert len(rows(table)) == 6
    assert "12.3 % of the synthesised speech, 5.0 % of the recorded" in table
    assert "BLEU" not in render(read_results([tmp_path / "b"]))
    assert "MCD" not in render(read_results([tmp_path / "a"]))


def test_one_mechanism_everywhere_is_said_once(tmp_path):
    everywhere = dict.fromkeys(RESULT["attention"], "elu")
    assert rows(render(read_results([folder(tmp_path / "a", attention=everywhere)])))[2][1] == "elu everywhere"


def test_every_row_has_its_command_and_shared_facts_stand_once(tmp_path):
    folders = [folder(tmp_path / "a"), folder(tmp_path / "b", command="other command", seed=2, commit="def5678")]
    table = render(read_results(folders))
    commands = table[table.index("```sh") :].splitlines()[1:-1]
    assert commands == [RESULT["command"], "other command"]
    assert table.count("some CPU, 1 of 2 cores; torch 2.13.0") == 1
    assert table.count("nrefs:1|tok:13a") == 1
    assert "seed: 1, 2; commit: abc1234, def5678" in table


def test_folders_without_a_result_are_left_out(tmp_path):
    (tmp_path / "data").mkdir()
    assert len(read_results([tmp_path / "data", folder(tmp_path / "a")])) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(None, "no result.json in", id="none"),
        pytest.param("{", "not JSON", id="broken"),
        pytest.param("{}", "has no attention", id="foreign"),
        pytest.param("[]", "has no attention", id="list"),
        pytest.param(json.dumps(RESULT | {"kind": "speech"}), "has no mcd", id="voice-without-distortion"),
    ],
)
def test_what_is_no_result_is_named(tmp_path, text, words):
    if text is not None:
        (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_results([tmp_path])
