"""Records of stages, locks, and what is said of the machine."""

import json
import platform
import threading

import pytest

from mla_fairseq.recipes import records
from mla_fairseq.recipes.records import Record, lock, read_record, write_record


def test_a_record_comes_back_as_it_went(tmp_path):
    record = Record({"train.lr": 0.1}, command="x", finished="now", seconds=1.5, machine={"cores": 2}, commit="abc")
    write_record(tmp_path / "new" / "record.json", record)
    assert read_record(tmp_path / "new" / "record.json") == record


def test_no_record_is_none(tmp_path):
    assert read_record(tmp_path / "record.json") is None


@pytest.mark.parametrize(
    "text", ["{", '{"options": {}, "colour": 1}', "{}", "[]"], ids=["cut", "other", "empty", "list"]
)
def test_a_broken_record_names_the_mend(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ValueError, match=r"record\.json is not a stage record.*delete it"):
        read_record(tmp_path / "record.json")


def test_a_second_run_is_refused(tmp_path):
    path = tmp_path / "run" / ".lock"
    with lock(path, wait=False), pytest.raises(ValueError, match=r"run is in use.*--name"), lock(path, wait=False):
        pass
    with lock(path, wait=False) as descriptor:
        assert descriptor > 2


def test_shared_work_is_waited_for(tmp_path):
    order = []
    held = threading.Event()

    def first() -> None:
        with lock(tmp_path / ".lock", wait=False):
            held.set()
            threading.Event().wait(0.3)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert held.wait(10)
    with lock(tmp_path / ".lock", wait=True):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_the_machine_is_described_without_its_name():
    described = records.machine(threads=1, cpu=True)
    assert described["device"] == "cpu"
    assert described["threads"] == 1
    assert described["cores"] >= 1
    assert platform.node() not in json.dumps(described)


def test_commit_is_short_and_says_if_files_were_changed():
    commit = records.commit()
    if commit is not None:  # a source archive has no history
        assert len(commit.removesuffix("-dirty")) >= 7


def test_no_commit_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "__file__", str(tmp_path / "records.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert records.commit() is None
