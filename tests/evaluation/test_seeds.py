"""Systems are means over their seeds, and are compared with the first one seed by seed."""

import json
import statistics

import numpy as np
import pytest

from mla_fairseq.evaluation.seeds import compare
from tests.programs import ROOT
from tests.programs import run as run_program

WORDS = np.array(["ein", "Mann", "steht", "vor", "einem", "roten", "Haus", "und", "liest", "eine", "Zeitung"])
BLEU = {"good": (20.0, 22.0, 24.0), "bad": (10.0, 10.5, 11.0)}


def references():
    random = np.random.default_rng(1)
    return [" ".join(random.choice(WORDS, 9)) for _ in range(120)]


def run(folder, system, seed, correct):
    """Write a run whose translations keep a share ``correct`` of the words."""
    path, random = folder / f"{system}{seed}", np.random.default_rng([seed, len(system)])
    path.mkdir()
    train = f"fairseq-train data --arch {system} --seed {seed} --save-dir runs/{system}{seed}/checkpoints --lr 1"
    record = {"name": path.name, "seed": seed, "subset": "tst", "bleu": BLEU[system][seed - 1], "chrf": 30.0}
    record |= {"command": f"mla-recipe {path.name}", "commit": "abcdef1" if seed == 1 else "abcdef2"}
    (path / "result.json").write_text(json.dumps({**record, "commands": {"train": train}}))
    lines = [" ".join(word if random.random() < correct else "x" for word in text.split()) for text in references()]
    (path / "generate-tst.txt").write_text("".join(f"D-{row}\t-1\t{text}\n" for row, text in enumerate(lines)))
    return path


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "tst.tsv"
    path.write_text("id\ttgt_text\n" + "".join(f"{row}\t{text}\n" for row, text in enumerate(references())))
    return path


def test_systems_have_means_deviations_and_p_values(tmp_path, manifest):
    bad = [run(tmp_path, "bad", seed, 0.6) for seed in (1, 2, 3)]
    good = [run(tmp_path, "good", seed, 0.9) for seed in (3, 1, 2)]
    first, second = compare([*bad, *good], manifest, samples=200)
    assert (first["bleu"], first["seeds"], "p_value" in first) == (10.5, "1, 2, 3", False)
    assert (second["bleu"], second["seeds"]) == (22.0, "3, 1, 2")
    assert second["bleu_deviation"] == statistics.stdev(BLEU["good"])
    assert second["bleu_difference"] == 11.5
    assert first["commit"] == "abcdef1, abcdef2"
    assert second["p_value"] < 0.01
    assert "ctc_word_error_rate_deviation" not in second  # neither has CTC


def test_equal_systems_are_not_better(tmp_path, manifest):
    runs = [run(tmp_path, system, seed, 0.7) for system in ("bad", "good") for seed in (1, 2)]
    assert compare(runs, manifest, samples=200)[1]["p_value"] > 0.05  # the larger one of two tests
    (tmp_path / "good1" / "generate-tst.txt").write_text((tmp_path / "bad1" / "generate-tst.txt").read_text())
    assert compare(runs[::2], manifest, samples=200)[1]["p_value"] == 1  # the same translations


def test_one_seed_has_no_deviation(tmp_path, manifest):
    assert compare([run(tmp_path, "bad", 1, 0.7)], manifest)[0]["bleu_deviation"] is None


def test_runs_that_cannot_be_compared_are_refused(tmp_path, manifest):
    runs = [run(tmp_path, "bad", 1, 0.7), run(tmp_path, "good", 2, 0.7)]
    with pytest.raises(ValueError, match=r"good2 and .*bad1 have different seeds \(1 is in one\)"):
        compare(runs, manifest)
    with pytest.raises(ValueError, match=r"bad1 has the seed of another run of the same system \(1\)"):
        compare([runs[0], runs[0]], manifest)


def test_seeds_are_added_to_an_earlier_comparison(tmp_path, manifest):
    bad = [run(tmp_path, "bad", seed, 0.7) for seed in (1, 2, 3)]
    good = [run(tmp_path, "good", seed, 0.75) for seed in (1, 2, 3)]
    whole = compare([*bad, *good], manifest, samples=200)
    early = json.loads(json.dumps(compare([bad[0], good[0]], manifest, samples=200)))  # as the record has it
    assert compare([*bad[1:], *good[1:]], manifest, samples=200, earlier=early) == whole
    with pytest.raises(ValueError, match=r"the earlier comparison has seed 1 of .*bad1: leave that run out"):
        compare([*bad, *good], manifest, earlier=early)
    with pytest.raises(ValueError, match="the earlier comparison is of bad1, good1, this one of good2, bad2: compare"):
        compare([good[1], bad[1]], manifest, earlier=early)


def test_a_record_has_the_commands_of_all_seeds(tmp_path, manifest):
    """The last one compares all runs at once: an earlier comparison may be lost."""

    def program(seeds, *flags):
        runs = [run(tmp_path, system, seed, 0.7) for system in ("bad", "good") for seed in seeds]
        flags = [*flags, "--manifest", manifest, "--samples", 20, "--output", tmp_path / "both"]
        done = run_program(ROOT / "scripts/compare_seeds.py", runs, *flags)
        assert done.code == 0, done.err
        return runs, json.loads((tmp_path / "both" / "result.json").read_text())

    runs, _ = program([1])
    more, record = program([2, 3], "--earlier", tmp_path / "both" / "result.json")
    *trainings, again = record["command"].splitlines()
    assert trainings == [f"mla-recipe {path.name}" for path in (*runs, *more)]
    assert again.split()[2:8] == [str(path) for path in (*runs, *more)]
    assert "--earlier" not in again
    assert record["seed"] == "1, 2, 3"
