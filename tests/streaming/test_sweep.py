"""The sweep over k: translations, table, pictures and transcripts of a model, and what was done is not done again."""

import csv
import re
from pathlib import Path

from mla_fairseq.evaluation.instances import LOG_NAME, read_instances
from tests.programs import ROOT, Done, run


def sweep(*arguments: object) -> Done:
    return run("mla-sweep", *arguments, "--cpu", cwd=ROOT)


def test_a_sweep_leaves_table_pictures_and_transcripts_and_goes_on(save, data: Path, tmp_path: Path) -> None:
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
    said = re.sub(r"\d+\.\d\d s|\(end of speech\)", " ", done.out)
    assert " ".join(instance.units) in " ".join(said.split())


def test_a_fault_is_one_line(save, data: Path, tmp_path: Path) -> None:
    done = sweep(data, "--path", save("--attn-type relu"), "--output", tmp_path, "--laggings", "1,0")
    assert done.code == 1
    assert done.last_line.startswith("error: --laggings must be numbers from 1 on")
    done = sweep(data, "--path", tmp_path / "none.pt", "--output", tmp_path)
    assert done.last_line == f"error: no checkpoint {tmp_path}/none.pt: check --path."
