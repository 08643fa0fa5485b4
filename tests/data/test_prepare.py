"""The preparation: the files for fairseq, what a second run makes again, and what a killed run leaves."""

import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from mla_fairseq.cli.prepare import main
from mla_fairseq.data import archive, manifest
from mla_fairseq.data.extraction import staging_folder
from mla_fairseq.data.mustc import MuSTC
from mla_fairseq.data.prepare import ARCHIVE, Options, prepare
from mla_fairseq.data.vocabulary import Vocabulary
from mla_fairseq.files import user_dir

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/prep_mustc.py"
OPTIONS = Options(vocabulary=Vocabulary("char"), workers=1)
PRODUCTS = {
    ".prepared.json",
    ARCHIVE,
    "config_st.yaml",
    "ctc_vocab_st.txt",
    "dev_st.tsv",
    "spm_char_st.model",
    "spm_char_st.txt",
    "train_st.tsv",
    "tst-COMMON_st.tsv",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def table(path: Path) -> list[dict[str, str]]:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_everything_is_written_and_nothing_else(pair: Path) -> None:
    assert prepare(pair, None, OPTIONS) == pair / "config_st.yaml"
    assert set(contents(pair)) == PRODUCTS
    assert [len(table(pair / f"{split}_st.tsv")) for split in ("train", "dev", "tst-COMMON")] == [18, 6, 6]


def test_another_output_leaves_the_corpus_alone(pair: Path, tmp_path: Path) -> None:
    prepare(pair, tmp_path / "out" / "en-de", OPTIONS)
    assert contents(pair) == {}
    assert set(contents(tmp_path / "out" / "en-de")) == PRODUCTS


def test_manifest_rows_point_at_their_features(pair: Path) -> None:
    prepare(pair, None, OPTIONS)
    segments = MuSTC(pair).read("train")
    rows = table(pair / "train_st.tsv")
    for row, segment in zip(rows, segments, strict=True):
        name, offset, length = row["audio"].split(":")
        assert name == ARCHIVE
        assert archive.read(pair / name, int(offset), int(length)).shape == (int(row["n_frames"]), 80)
        assert (row["id"], row["tgt_text"], row["src_text"]) == (segment.id, segment.target, segment.source)
        assert (row["speaker"], row["src_lang"], row["tgt_lang"]) == ("007", "en", "de")


def test_asr_has_the_source_as_target_and_shares_the_features(pair: Path) -> None:
    prepare(pair, None, OPTIONS)
    before = (pair / ARCHIVE).stat()
    prepare(pair, None, replace(OPTIONS, task="asr"))
    assert (pair / ARCHIVE).stat() == before
    rows = table(pair / "train_asr.tsv")
    assert all(row["tgt_text"] == row["src_text"] and row["tgt_text"].startswith("en ") for row in rows)
    assert {row["tgt_lang"] for row in rows} == {"en"}
    made = {"config_asr.yaml", "ctc_vocab_asr.txt", "spm_char_asr.model", "spm_char_asr.txt"}
    assert set(contents(pair)) - PRODUCTS == made | {f"{split}_asr.tsv" for split in ("train", "dev", "tst-COMMON")}


def test_filters_are_for_training_only(pair: Path) -> None:
    """The segments have 78, 48 and 73 frames."""
    prepare(pair, None, replace(OPTIONS, min_frames=50, max_frames=77))
    assert {row["n_frames"] for row in table(pair / "train_st.tsv")} == {"73"}
    assert {row["n_frames"] for row in table(pair / "dev_st.tsv")} == {"78", "48", "73"}


def test_training_segments_without_text_are_left_out(pair: Path) -> None:
    text = pair / "data/train/txt/train.de"
    text.write_text(re.sub("^.*\n", "\n", text.read_text(encoding="utf-8"), count=1), encoding="utf-8")
    (pair / "data/dev/txt/dev.de").write_text("\n" * 6)  # a set without references
    prepare(pair, None, OPTIONS)
    assert [len(table(pair / f"{split}_st.tsv")) for split in ("train", "dev")] == [17, 6]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("none", None),
        ("lb", {"freq_mask_N": 1, "freq_mask_F": 27, "time_mask_N": 1, "time_mask_T": 100, "time_mask_p": 1.0}),
        ("sm", {"freq_mask_N": 2, "freq_mask_F": 15, "time_mask_N": 2, "time_mask_T": 70, "time_mask_p": 0.2}),
    ],
)
def test_specaugment_is_for_training_only(pair: Path, policy: str, expected: dict[str, float] | None) -> None:
    settings = yaml.safe_load(prepare(pair, None, replace(OPTIONS, specaugment=policy)).read_text())
    assert settings.get("specaugment") == (expected and {"time_warp_W": 0, **expected})
    masks = ["specaugment"] if expected else []
    assert settings["feature_transforms"] == {"*": ["utterance_cmvn"], "_train": ["utterance_cmvn", *masks]}


def test_global_statistics_are_those_of_the_training_rows(pair: Path) -> None:
    settings = yaml.safe_load(prepare(pair, None, replace(OPTIONS, cmvn="global", min_frames=50)).read_text())
    assert settings["global_cmvn"] == {"stats_npz_path": "gcmvn.npz"}
    assert settings["feature_transforms"]["*"] == ["global_cmvn"]
    places = manifest.places(pair / "train_st.tsv")[ARCHIVE]
    frames = np.concatenate([archive.read(pair / ARCHIVE, *place) for place in places]).astype(np.float64)
    statistics = np.load(pair / "gcmvn.npz")
    assert len(places) == 12
    assert np.allclose(statistics["mean"], frames.mean(axis=0), rtol=1e-6)
    assert np.allclose(statistics["std"], frames.std(axis=0), rtol=1e-5)


def test_all_paths_are_relative_to_the_folder(pair: Path) -> None:
    prepare(pair, None, replace(OPTIONS, cmvn="global"))
    for name in ("config_st.yaml", "train_st.tsv", ".prepared.json"):
        assert str(pair.parent) not in (pair / name).read_text(encoding="utf-8")


CHANGES = {
    "nothing": ({}, set()),
    "vocabulary": ({"vocabulary": Vocabulary("bpe", 40)}, {"spm_bpe40_st.model", "spm_bpe40_st.txt"}),
    "cmvn": ({"cmvn": "global"}, {"gcmvn.npz"}),
    "masks": ({"specaugment": "lb"}, set()),
    "filter": ({"min_frames": 50}, {"train_st.tsv", "spm_char_st.model", "spm_char_st.txt", "ctc_vocab_st.txt"}),
}


@pytest.mark.parametrize(("change", "redone"), CHANGES.values(), ids=CHANGES.keys())
def test_only_what_depends_on_a_changed_option_is_redone(pair: Path, change: dict, redone: set[str]) -> None:
    prepare(pair, None, OPTIONS)
    old = {path.name: path.stat().st_ino for path in pair.iterdir() if path.is_file()}
    prepare(pair, None, replace(OPTIONS, **change))
    new = {path.name: path.stat().st_ino for path in pair.iterdir() if path.is_file()}
    always = {"config_st.yaml", ".prepared.json"}
    assert {name for name in new if old.get(name) != new[name]} - always == redone


def test_a_deleted_dictionary_is_made_again(pair: Path) -> None:
    prepare(pair, None, OPTIONS)
    before = contents(pair)
    (pair / "spm_char_st.txt").unlink()
    prepare(pair, None, OPTIONS)
    assert contents(pair) == before


def test_a_corrected_segment_list_gives_new_features(pair: Path) -> None:
    prepare(pair, None, OPTIONS)
    old = table(pair / "dev_st.tsv")
    listing = pair / "data/dev/txt/dev.yaml"
    listing.write_text(listing.read_text().replace("offset: 2.0", "offset: 3.0", 1))
    prepare(pair, None, OPTIONS)
    new = table(pair / "dev_st.tsv")
    changed = [(before, after) for before, after in zip(old, new, strict=True) if before != after]
    assert [before["id"] for before, _ in changed] == ["ted_dev_0_1"]
    _, offset, length = changed[0][1]["audio"].split(":")
    samples = MuSTC(pair).read("dev")[1]
    assert samples.start == 48_000
    assert archive.read(pair / ARCHIVE, int(offset), int(length)).shape == (samples.num_frames, 80)


def test_a_changed_recording_gives_new_features(pair: Path) -> None:
    prepare(pair, None, replace(OPTIONS, cmvn="global"))
    before = contents(pair)
    wav = next((pair / "data/train/wav").glob("*.wav"))
    samples, rate = soundfile.read(wav, dtype="int16")
    soundfile.write(wav, samples // 2, rate)
    prepare(pair, None, replace(OPTIONS, cmvn="global"))
    after = contents(pair)
    assert {name for name in after if after[name] != before[name]} == {".prepared.json", ARCHIVE, "gcmvn.npz"}


def test_a_split_can_be_added_later(pair: Path, make_pair: Callable[..., Path]) -> None:
    prepare(pair, None, OPTIONS)
    before = contents(pair)
    make_pair(splits={"tst-HE": 1})
    prepare(pair, None, OPTIONS)
    after = contents(pair)
    assert after["train_st.tsv"] == before["train_st.tsv"]
    assert len(table(pair / "tst-HE_st.tsv")) == 3


def spoil(relative: str, content: bytes) -> Callable[[Path], None]:
    return lambda pair: (pair / relative).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "options", "message"),
    [
        pytest.param(lambda pair: shutil.rmtree(pair / "data/train"), {}, "no train split", id="no train split"),
        pytest.param(
            spoil("data/train/txt/train.de", b"\n" * 18), {}, "none of 18 train segments has a text", id="no text"
        ),
        pytest.param(lambda pair: None, {"min_frames": 900}, r"900 to 3000 frames.*--min-frames", id="all too short"),
        pytest.param(
            lambda pair: None,
            {"vocabulary": Vocabulary("unigram", 9_000)},
            r"--vocab-size is too large for 18 training lines \(9000\): use \d+",
            id="large vocabulary",
        ),
        pytest.param(
            spoil("data/dev/txt/dev.yaml", b"- {wav: ted_dev_0.wav, offset: 1, duration: 0.01}\n" * 6),
            {},
            "dev: segment ted_dev_0_0 has no frame",
            id="segment of 10 ms",
        ),
        pytest.param(
            spoil("data/dev/txt/dev.de", b"a\nb\nc\n\0 \nd\ne\n"),
            {},
            r"txt/dev\.de:4 is empty, so it cannot be scored: add the text, or remove the segment",
            id="no reference",
        ),
    ],
)
def test_faults_are_found_before_any_feature_is_computed(
    pair: Path, damage: Callable[[Path], None], options: dict, message: str
) -> None:
    damage(pair)
    with pytest.raises(ValueError, match=message):
        prepare(pair, None, replace(OPTIONS, **options))
    assert contents(pair) == {}


ARGUMENTS = ("--vocab-type", "char", "--workers", "2")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run ``mla-prepare`` in this process; its logging stays pytest's."""
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)

    def run(*arguments: str) -> None:
        main(arguments)

    return run


def test_the_command_prepares_and_prints_the_next_command(
    make_pair: Callable[..., Path], script: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pairs = [make_pair(), make_pair("syn-en-fr", languages=("en", "fr"))]
    script("--data", str(pairs[0].parent), "--pairs", "en-de", "syn-en-fr", *ARGUMENTS)
    for pair in pairs:
        assert set(contents(pair)) == PRODUCTS
        ready = f"{pair.name}: ready: fairseq-train {pair} --config-yaml config_st.yaml --user-dir {user_dir()} --task"
        assert ready in caplog.text


def test_the_command_takes_data_from_the_environment(pair: Path, monkeypatch: pytest.MonkeyPatch, script) -> None:
    monkeypatch.setenv("DATA", str(pair.parent))
    script("--pairs", "en-de", "--output", str(pair.parent / "out"), *ARGUMENTS)
    assert set(contents(pair.parent / "out" / "en-de")) == PRODUCTS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--pairs", "en-de"], "set --data DIR or the environment variable DATA", id="no data"),
        pytest.param(["--data", "nowhere", "--pairs", "en-de"], "nowhere is not a folder", id="data not there"),
        pytest.param(
            ["--data", ".", "--pairs", "en-xx"],
            ". has no corpus of the pair en-xx: arrange it as one of mustc: PAIR/data",
            id="pair not there",
        ),
    ],
)
def test_the_command_reports_a_fault_in_one_line(
    pair: Path, monkeypatch: pytest.MonkeyPatch, script: Callable[..., None], arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(pair.parent)
    monkeypatch.delenv("DATA", raising=False)
    with pytest.raises(SystemExit) as ending:
        script(*arguments)
    assert re.fullmatch(rf"error: .*{re.escape(message)}.*", str(ending.value))


@pytest.mark.parametrize("flag", ["--vocab-size", "--workers"])
def test_a_number_below_one_is_refused_when_it_is_parsed(
    script: Callable[..., None], capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    with pytest.raises(SystemExit):
        script("--data", ".", "--pairs", "en-de", flag, "0")
    assert f"argument {flag}: " in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_archive(make_pair: Callable[..., Path], tmp_path: Path) -> None:
    pair = make_pair(splits={"train": 300})
    expected = prepare(pair, tmp_path / "whole", OPTIONS).parent / ARCHIVE
    staging, kills, environment = staging_folder(pair / ARCHIVE), 0, {**os.environ, "PYTHONPATH": str(ROOT)}
    for wanted in (0.2, 0.5, 0.8):
        command = [sys.executable, SCRIPT, "--data", pair.parent, "--pairs", pair.name, *ARGUMENTS]
        script = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        while script.poll() is None and len(list(staging.glob("*.npy"))) < wanted * len(archive.members(expected)):
            time.sleep(0.01)
        if script.poll() is None:
            script.kill()
            kills += 1
        script.wait()
        assert not (pair / "config_st.yaml").exists()
    assert kills == 3
    prepare(pair, None, OPTIONS)
    assert (pair / ARCHIVE).read_bytes() == expected.read_bytes()
    assert not staging.exists()
