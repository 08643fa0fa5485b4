"""RESULTS.md agrees with its records, and the code of every record can be checked out."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from mla_fairseq.evaluation.results import add, check, render

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = sorted(path.parents[1] for path in ROOT.glob("examples/*/results/template.md"))
RECORD = {
    "name": "a",
    "command": "run a\nscore",
    "commit": "abc1234",
    "attention": {"encoder": "relu", "decoder": "softmax", "cross": "softmax"},
    "bleu": 12.345,
    "bleu_signature": "tok:13a",
    "parameters": 2506624,
    "minutes": None,
    "seed": 1,
    "machine": {"device": "cpu", "cpu": "some CPU", "cores": 2, "threads": 1, "torch": "2.13"},
    "points": [{"setting": "k = 1", "bleu": 9.0, "offline_bleu": 10.0}, {"setting": "k = 3", "bleu": 9.5}],
}
TEMPLATE = """# Title

```table some
attention | {sites}
BLEU | {bleu:.1f}
size | {size}
minutes | {minutes:.0f}
```

```table some points
k | {setting}
BLEU | {bleu:.1f}
share | {share:.0%}
```

```facts some
```

```commands some
```
"""
WRITTEN = """# Title

| attention | BLEU | size | minutes |
| --- | ---: | ---: | ---: |
| relu / softmax / softmax | 12.3 | 2.51 M | - |
| elu everywhere | 8.0 | 2.51 M | 20 |

| k | BLEU | share |
| --- | ---: | ---: |
| k = 1 | 9.0 | 90% |
| k = 3 | 9.5 | - |
| k = 1 | 9.0 | 90% |
| k = 3 | 9.5 | - |

- BLEU: `tok:13a`
- machine: some CPU, 1 of 2 cores; torch 2.13
- seed: 1, 2

```sh
run a
score
run b
```
"""


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A folder with a template and no record."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "template.md").write_text(TEMPLATE)
    return tmp_path


def run(folder: Path, **changes) -> Path:
    """The folder of a finished run."""
    path = folder / "runs" / changes.get("name", "a")
    path.mkdir(parents=True, exist_ok=True)
    (path / "result.json").write_text(json.dumps(RECORD | changes))
    return path


@pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])
def test_published_results_agree_with_their_records(folder):
    assert (folder / "RESULTS.md").read_text(encoding="utf-8") == render(folder)


def test_there_are_published_results():
    assert [folder.name for folder in FOLDERS] == ["multilingual", "mustc", "simulst", "tts"]


def test_rows_have_all_cells_and_shared_facts_are_written_once(example):
    everywhere = dict.fromkeys(RECORD["attention"], "elu")
    add(example, "some", run(example))
    add(example, "some", run(example, name="b", command="run b", attention=everywhere, bleu=8.0, minutes=20, seed=2))
    assert render(example).partition("-->\n\n")[2] == WRITTEN


def test_a_run_that_is_added_again_keeps_its_row(example):
    for name in ("a", "b"):
        add(example, "some", run(example, name=name))
    assert add(example, "some", run(example, bleu=99.0)).name == "01-a.json"
    assert "| 99.0 |" in render(example)
    assert len(list((example / "results" / "some").iterdir())) == 2


@pytest.mark.parametrize("commit", ["abc1234-dirty", None, "", "unknown", "abc1234..def5678-dirty"])
def test_a_commit_that_cannot_be_checked_out_is_refused(example, commit):
    with pytest.raises(ValueError, match=rf"cannot be checked out \({commit}\): run the recipe again at a clean"):
        add(example, "some", run(example, commit=commit))
    assert not (example / "results" / "some").exists()
    (example / "results" / "some").mkdir()
    (example / "results" / "some" / "01-a.json").write_text(json.dumps(RECORD | {"commit": commit}))
    with pytest.raises(ValueError, match="cannot be checked out"):
        render(example)


def test_records_have_no_path_of_one_machine(example):
    commands = {"train": f"fairseq-train {example}/runs/data/x --save-dir '{example}/runs/a'"}
    copy = add(example, "some", run(example, commands=commands))
    assert json.loads(copy.read_text())["commands"] == {"train": "fairseq-train runs/data/x --save-dir 'runs/a'"}
    with pytest.raises(ValueError, match=r"has a path of one machine \(/data/x\): add the run from its own folder"):
        add(example, "some", run(example, commands={"train": "fairseq-train /data/x"}))


def test_runs_that_did_not_measure_a_part_of_a_table_have_no_rows_there(example):
    template = example / "results" / "template.md"
    template.write_text("```table some sets\nname | {name}\nset | {subset}\n```")
    add(example, "some", run(example, sets=[{"subset": "dev"}]))
    add(example, "some", run(example, name="b"))
    assert render(example).endswith("| a | dev |")
    template.write_text("```table some long_recordings\nname | {name}\n```")
    with pytest.raises(ValueError, match="no record has long_recordings: correct the template"):
        render(example)


def test_a_range_of_commits_is_a_commit():
    check(Path("x.json"), RECORD | {"commit": "abc1234..def5678"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param([], "no record in", id="empty"),
        pytest.param(["--add", "runs/no", "--table", "some"], "runs/no/result.json is missing", id="no-run"),
        pytest.param(["--table", "some"], "--add and --table are needed together", id="table-alone"),
    ],
)
def test_the_script_reports_a_fault_in_one_line(example, monkeypatch, arguments, words):
    monkeypatch.chdir(example)
    monkeypatch.setattr(sys, "argv", ["x", str(example), *arguments])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "scripts" / "write_results.py"), run_name="__main__")
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (example / "RESULTS.md").exists()


def test_the_script_adds_and_writes(example, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", str(example), "--add", str(run(example)), "--table", "some"])
    runpy.run_path(str(ROOT / "scripts" / "write_results.py"), run_name="__main__")
    assert (example / "RESULTS.md").read_text() == render(example)
    assert "01-a.json" in capsys.readouterr().out


def test_a_table_that_the_template_does_not_have_is_refused(example):
    with pytest.raises(ValueError, match=r"--table is not in the template of .* \(smoe\): choose one of some"):
        add(example, "smoe", run(example))
    assert not (example / "results" / "smoe").exists()


def test_a_broken_or_nameless_record_is_refused_before_it_is_stored(example):
    (path := run(example) / "result.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=f"{path} is not JSON"):
        add(example, "some", path.parent)
    with pytest.raises(ValueError, match="has no name"):
        add(example, "some", run(example, name=""))
    assert not list((example / "results").glob("some/*.json"))


def test_the_name_of_a_record_stays_in_its_table(tmp_path: Path) -> None:
    (tmp_path / "example" / "results").mkdir(parents=True)
    (tmp_path / "example" / "results" / "template.md").write_text(TEMPLATE)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text(json.dumps(RECORD | {"name": "../../../x"}))
    with pytest.raises(ValueError, match=r"the name in .*result\.json cannot name a file \('\.\./\.\./\.\./x'\)"):
        add(tmp_path / "example", "some", tmp_path / "run")
