"""The sweep over k: translations, table, pictures and transcripts of a model; finished work is not repeated."""

import csv
import re
import subprocess
from pathlib import Path
from typing import IO

import pytest

from mla_fairseq.evaluation.instances import LOG_NAME, read_instances
from tests.programs import ROOT, Done, run


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the commands that the sweep starts as well; each would import fairseq for 8 s."""

    def start(command: list[str], stdout: IO[str], stderr: IO[str]) -> subprocess.CompletedProcess:
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


def test_an_error_is_one_line(save, data: Path, tmp_path: Path) -> None:
    done = sweep(data, "--path", save("--attn-type relu"), "--output", tmp_path, "--laggings", "1,0")
    assert done.code == 1
    assert done.last_line.startswith("error: --laggings must be numbers from 1 on")
    done = sweep(data, "--path", tmp_path / "none.pt", "--output", tmp_path)
    assert done.last_line == f"error: no checkpoint {tmp_path}/none.pt: check --path."
