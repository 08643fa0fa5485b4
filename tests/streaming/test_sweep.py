"""The sweep over k: translations, table, pictures and transcripts of a model; finished work is not repeated."""

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from mla_fairseq.evaluation.instances import LOG_NAME, read_instances
from mla_fairseq.evaluation.simultaneous import SimultaneousScores
from mla_fairseq.evaluation.sweeps import write_sweep
from tests.programs import ROOT, Done, run


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the commands that the sweep starts as well; each would import fairseq for 8 s."""

    def start(command: list[str], stdout: IO[str], stderr: IO[str], **options: object) -> subprocess.CompletedProcess:
        done = run(Path(command[0]).name, *command[1:])
        stdout.write(done.out)
        stderr.write(done.err)
        return subprocess.CompletedProcess(command, done.code)

    monkeypatch.setattr(subprocess, "run", start)


def sweep(*arguments: object) -> Done:
    return run("mla-sweep", *arguments, "--cpu", cwd=ROOT)


def test_a_sweep_writes_table_pictures_and_transcripts_and_resumes(save, data: Path, tmp_path: Path) -> None:
    common = (data, "--path", save("--attn-type relu"), "--output", tmp_path)
    first = sweep(*common, "--laggings", "1", "--timelines")
    assert first.code == 0, first.err
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/generate.txt")}
    assert {path.parent.name for path in made} == {"k1", "whole"}

    done = sweep(*common, "--laggings", "9,1", "--timelines", "2", "77")
    assert done.code == 0, done.err
    assert {path: path.stat().st_mtime_ns for path in made} == made

    with (tmp_path / "points.tsv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["k"] for row in rows] == ["1", "9"]
    assert float(rows[0]["al"]) < float(rows[1]["al"])
    assert rows[0]["offline_bleu"] == rows[1]["offline_bleu"] != ""
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {"quality-latency.png", "timeline-2-k9.png"}
    instance = next(one for one in read_instances(tmp_path / "k9" / LOG_NAME) if one.index == 2)
    assert "Sentence 2 as it appears, k = 9" in done.out
    printed = re.sub(r"\d+\.\d\d s|\(end of speech\)", " ", done.out)
    assert " ".join(instance.units) in " ".join(printed.split())


def test_a_package_with_a_mechanism_is_passed_on(save, data: Path, tmp_path: Path) -> None:
    package = tmp_path / "my_sweep_attention"
    package.mkdir()
    (package / "__init__.py").write_text("from mla_fairseq import plugin\nprint('my package is imported')\n")
    common = (data, "--path", save("--attn-type relu"), "--output", tmp_path / "out")
    done = sweep(*common, "--laggings", "1", "--timelines", "--user-dir", package)
    assert done.code == 0, done.err
    assert f"--user-dir {package} " in (tmp_path / "out/k1/made-by").read_text()
    assert "my package is imported" in (tmp_path / "out/k1/generate.txt").read_text()


def test_an_error_is_one_line(save, data: Path, tmp_path: Path) -> None:
    done = sweep(data, "--path", save("--attn-type relu"), "--output", tmp_path, "--laggings", "1,0")
    assert done.code == 2
    assert done.last_line.endswith("error: argument --laggings: '0' is not a whole number of at least 1")
    done = sweep(data, "--path", tmp_path / "none.pt", "--output", tmp_path)
    assert done.last_line == f"error: {tmp_path}/none.pt is missing: check --path"
    done = sweep(tmp_path, "--path", save("--attn-type relu"), "--output", tmp_path / "out")
    assert done.last_line == f"error: {tmp_path}/config_st.yaml is missing: check the data folder and --config-yaml"
    done = sweep(data, "--path", save("--attn-type relu"), "--output", "/proc/x")
    assert done.code == 1
    assert done.last_line.startswith("error: ") and "/proc/x" in done.last_line


def scores(al: float | None) -> SimultaneousScores:
    return SimultaneousScores(2, 0 if al else 2, 5.0, 9.0, *[al] * 5, *[None] * 5, 900.0, 1.0, 3.0, "b", "c", "l")


@pytest.mark.parametrize("empty", [("1",), ("1", "3")])
def test_empty_translations_are_in_the_table_and_not_in_the_picture(empty: tuple[str, ...], tmp_path: Path, caplog):
    picture = write_sweep(tmp_path, "k", {k: scores(None if k in empty else 400.0) for k in ("1", "3")})
    with (tmp_path / "points.tsv").open(encoding="utf-8") as stream:
        assert [row["k"] for row in csv.DictReader(stream, delimiter="\t")] == ["1", "3"]
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("mla_fairseq")]
    assert messages == [f"k = {k}: every translation is empty, so it has no latency" for k in empty]
    assert (picture is None) == (len(empty) == 2) == (not list(tmp_path.glob("*.png")))


def test_without_matplotlib_a_sweep_has_no_pictures(tmp_path: Path, caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"] or ["matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert write_sweep(tmp_path, "k", {"1": scores(400.0)}) is None
    assert [path.name for path in tmp_path.iterdir()] == ["points.tsv"]
    assert len(caplog.messages) == 1 and "no pictures: " in caplog.text and "install the extra plots" in caplog.text


def test_an_agent_is_swept_once_for_each_value(save, data: Path, tmp_path: Path) -> None:
    wavs = sorted((data / "data/tst-COMMON/wav").glob("*.wav"))[:2]
    (tmp_path / "source").write_text("".join(f"{wav}\n" for wav in wavs))
    (tmp_path / "target").write_text("ein haus am see\n" * len(wavs))
    lists = ["--source", tmp_path / "source", "--target", tmp_path / "target", "--source-segment-size", 280]
    common = ["--agent", "WaitKAgent", "--option", "waitk_lagging", "--output", tmp_path / "out"]
    model = ["--", "--model-path", save("--attn-type relu"), "--data-bin", data, *lists]
    made = {}
    for values in ("1", "1,3"):
        done = run("mla-sweep-agent", common, "--values", values, model, cwd=ROOT)
        assert done.code == 0, done.err
        found = {path.parent.name: path.stat().st_mtime_ns for path in tmp_path.glob("out/*/instances.log")}
        assert sorted(found) == values.split(",")
        assert made.items() <= found.items()
        made = found
    assert "| waitk_lagging = 3 |" in done.out
    with (tmp_path / "out" / "points.tsv").open(encoding="utf-8") as stream:
        assert [row["setting"] for row in csv.DictReader(stream, delimiter="\t")] == ["1", "3"]


def test_a_multilingual_model_is_swept_over_several_sets(joint: Path, multilingual, tmp_path: Path) -> None:
    """Each sentence is translated into the language of its row."""
    sets = "tst-COMMON_de_st,tst-COMMON_fr_st"
    common = (joint, "--path", multilingual(), "--output", tmp_path, "--timelines", "--laggings", "2")
    done = sweep(*common, "--subset", sets)
    assert done.code == 0, done.err
    assert len(read_instances(tmp_path / "k2" / LOG_NAME)) == 10
    assert "--prefix-size 1" in (tmp_path / "k2" / "made-by").read_text()
