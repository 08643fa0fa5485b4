"""The layouts of published corpora: what is read, what is prepared from it, and what is refused."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soxr

from mla_fairseq.cli.prepare import main as prepare_main
from mla_fairseq.cli.segments import main as segments_main
from mla_fairseq.data import archive, manifest
from mla_fairseq.data.corpus import Segment
from mla_fairseq.data.layouts import LAYOUTS, open_corpus
from mla_fairseq.data.prepare import Options, prepare
from mla_fairseq.data.vocabulary import Vocabulary
from mla_fairseq.speech import change_speed, load_audio, read_audio
from tests.data.corpora import MAKERS, audio, make_covost2, make_europarl_st, make_manifest, make_mtedx, tsv, write

OPTIONS = Options(vocabulary=Vocabulary("char"), min_frames=1)


def read(pair: Path, split: str = "train") -> list[Segment]:
    return open_corpus(pair).read(split)


@pytest.mark.parametrize("layout", MAKERS)
def test_a_corpus_is_recognised_prepared_and_cut(layout: str, tmp_path: Path) -> None:
    pair = MAKERS[layout](tmp_path / "data")
    corpus = open_corpus(pair)
    assert (corpus.layout, open_corpus(pair, layout).layout) == (layout, layout)
    arguments = ["--data", str(pair.parent), "--workers", "1", "--output", str(tmp_path / "out")]
    prepare_main([*arguments, "--pairs", pair.name, "--vocab-type", "char"])
    for split in corpus.splits:
        segments = corpus.read(split)
        rows = [row for _, row in manifest.rows(tmp_path / "out" / pair.name / f"{split}_st.tsv")]
        assert [(row["id"], row["src_text"], row["tgt_text"]) for row in rows] == [
            (one.id, one.source, one.target) for one in segments
        ]
        for row in rows:
            name, offset, length = row["audio"].split(":")
            features = archive.read(tmp_path / "out" / pair.name / name, int(offset), int(length))
            assert features.shape == (int(row["n_frames"]), 80)
            assert (row["src_lang"], row["tgt_lang"]) == corpus.languages
    split = corpus.splits[-1]
    segments_main([*arguments[:2], "--pair", pair.name, "--split", split, "--output", str(tmp_path / "cut")])
    cut = [len(read_audio(path)) for path in sorted((tmp_path / "cut" / split).iterdir())]
    assert cut == [one.length for one in corpus.read(split)]


def test_pairs_of_two_layouts_become_one_folder(tmp_path: Path) -> None:
    """Joint training with a tag for each language."""
    make_covost2(tmp_path, "en", "ca")
    make_europarl_st(tmp_path, "en", "de")
    options = ["--workers", "1", "--vocab-type", "char", "--joint", "--output", str(tmp_path / "out")]
    prepare_main(["--data", str(tmp_path), "--pairs", "en-ca", "en-de", *options])
    for language in ("ca", "de"):
        rows = [row for _, row in manifest.rows(tmp_path / "out" / f"train_{language}_st.tsv")]
        assert {row["tgt_lang"] for row in rows} == {language}
    assert "<lang:ca> 1\n<lang:de> 1\n" in (tmp_path / "out" / "spm_char_st.txt").read_text()


def test_covost2_joins_transcripts_and_splits(tmp_path: Path) -> None:
    corpus = open_corpus(make_covost2(tmp_path))
    assert corpus.languages == ("en", "de")
    assert [len(corpus.read(split)) for split in corpus.splits] == [4, 2, 2]
    first = corpus.read("train")[0]
    assert (first.id, first.speaker, first.start) == ("common_voice_en_train0", "client0", 0)
    assert abs(first.length - 16_000) <= 2
    assert first.source == "en train das haus am see 0"
    assert first.target == "de train das haus am see 0"


def test_covost2_takes_the_tables_of_its_script_and_converted_clips(tmp_path: Path) -> None:
    pair = make_covost2(tmp_path, "en", "zh-CN")
    expected = [(one.id, one.source, one.target, one.speaker) for one in read(pair)]
    rows = [
        {"path": f"{name}.mp3", "sentence": one, "translation": other, "client_id": who}
        for name, one, other, who in expected
    ]
    (tmp_path / "en" / "covost_v2.en_zh-CN.tsv").unlink()
    (tmp_path / "en" / "validated.tsv").unlink()
    tsv(tmp_path / "en" / "covost_v2.en_zh-CN.train.tsv", rows)
    for clip in (tmp_path / "en" / "clips").iterdir():
        clip.rename(clip.with_suffix(".wav"))
    corpus = open_corpus(pair)
    assert (corpus.splits, corpus.languages) == (("train",), ("en", "zh-CN"))
    assert [(one.id, one.source, one.target, one.speaker) for one in corpus.read("train")] == expected


def test_covost2_removes_escapes(tmp_path: Path) -> None:
    pair = make_covost2(tmp_path)
    table = tmp_path / "en" / "covost_v2.en_de.tsv"
    write(table, table.read_text().replace("de dev das", 'de \\"dev\\" a\\\tb c\\\\d'))
    assert read(pair, "dev")[0].target == 'de "dev" a b c\\d haus am see 0'


def test_europarl_st_has_speeches_sorted_by_time(tmp_path: Path) -> None:
    corpus = open_corpus(make_europarl_st(tmp_path))
    assert corpus.splits == ("train", "train-noisy", "dev", "test")
    first, second = corpus.read("train")[:2]
    assert (first.id, second.id) == ("en.2008.train.3-0_0", "en.2008.train.3-0_1")
    assert (first.start, first.length, second.start) == (8_000, 20_000, 40_000)
    assert (first.source, first.speaker) == ("en train ein wald rauscht 1", "speaker_0")


def test_mtedx_finds_flac_files(tmp_path: Path) -> None:
    first = read(make_mtedx(tmp_path))[0]
    assert (first.wav.name, first.id, first.length) == ("talktrain.flac", "talktrain_0", 12_800)


@pytest.mark.parametrize("form", ["tsv", "jsonl"])
def test_manifests_have_any_audio_and_times(tmp_path: Path, form: str) -> None:
    pair = make_manifest(tmp_path, form=form)
    first, second = read(pair)[:2]
    assert (first.id, second.id, second.start, second.length) == ("train_0", "train_1", 24_000, 20_000)
    assert (second.source, second.speaker) == ("en train ein wald rauscht 1", "me")
    row = {"audio": str(tmp_path / "audio" / "dev.ogg"), "src_text": "a", "tgt_text": "b", "id": "whole"}
    tsv(pair / "manifest" / "extra.tsv", [row])
    assert [(one.id, one.length, one.speaker) for one in read(pair, "extra")] == [("whole", 128_000, "")]


def test_the_target_can_be_another_column(tmp_path: Path) -> None:
    """Distillation: the training set has the translations of a teacher, all other sets have the references."""
    pair = make_manifest(tmp_path)
    corpus = open_corpus(pair, target_column="teacher")
    assert [one.target for one in corpus.read("train")] == [f"lehrer {one.target}" for one in read(pair)]
    assert corpus.read("dev") == read(pair, "dev")
    with pytest.raises(ValueError, match=r"train\.tsv:2 lacks student \(it has audio, .*\): add it"):
        open_corpus(pair, target_column="student").read("train")
    with pytest.raises(ValueError, match=r"--target-column needs plain manifests, but .*es-en is mtedx: remove it"):
        open_corpus(make_mtedx(tmp_path), target_column="teacher")


def change(relative: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(data: Path) -> None:
        text = (data / relative).read_text()
        assert old in text
        (data / relative).write_text(text.replace(old, new, 1))

    return damage


def remove(relative: str) -> Callable[[Path], None]:
    return lambda data: (data / relative).unlink()


def as_m4a(data: Path) -> None:
    for path in (data / "en" / "audios").iterdir():
        path.rename(path.with_suffix(".m4a"))


def empty(relative: str) -> Callable[[Path], None]:
    return lambda data: write(data / relative, "")


LST, TABLE, PLAIN = "en/de/train/segments.lst", "en/covost_v2.en_de.tsv", "my-en-de/manifest/train.tsv"
CLIP = "en/clips/common_voice_en_train0.mp3"
FAULTS = [
    ("covost2", remove(CLIP), r"common_voice_en_train0\.mp3 is missing"),
    ("covost2", empty(CLIP), r"common_voice_en_train0\.mp3: cannot be read as audio"),
    ("covost2", remove("en/validated.tsv"), r"validated\.tsv is missing"),
    ("covost2", change("en/validated.tsv", "sentence", "text"), r"validated\.tsv:2 lacks sentence \(it has client_id"),
    ("covost2", change(TABLE, "train0.mp3\t", "train0.mp3 "), r"en_de\.tsv:2 has 2 of 3 columns: correct the line"),
    ("covost2", change(TABLE, "common_voice_en_train0", "../../x"), None),  # not in validated.tsv, so left out
    ("europarl_st", as_m4a, r"m4a cannot be read.*convert all once, with `cd .*audios; for f in \*\.m4a"),
    ("europarl_st", remove("en/audios/en.2008.train.3-0.flac"), r"en\.2008\.train\.3-0\.wav is missing"),
    ("europarl_st", remove("en/de/train/segments.de"), r"segments\.de is missing"),
    ("europarl_st", change("en/de/train/segments.de", "\n", " "), r"segments\.de has 3 lines, but segments\.lst has 4"),
    ("europarl_st", change(LST, " 2.50 ", " "), r"segments\.lst:1 is not SPEECH START END \('en\.2008"),
    ("europarl_st", change(LST, " 3.75", " 2.50"), r"segments\.lst:1: .*duration is not positive"),
    ("europarl_st", change(LST, "3.75", "9.75"), r"segments\.lst:1: a segment ends at 9\.75 s, after the end"),
    ("europarl_st", change(LST, "en.2008", "../en.2008"), r"the speech in .*segments\.lst:1 cannot name a file"),
    ("mtedx", remove("es-en/data/train/wav/talktrain.flac"), r"talktrain\.wav is missing"),
    ("manifest", change(PLAIN, "audio\t", "wav\t"), r"train\.tsv:2 lacks audio \(it has wav, offset"),
    ("manifest", change(PLAIN, "../../audio/train.ogg", ""), r"train\.tsv:2: audio is empty: give the path"),
    ("manifest", change(PLAIN, "train.ogg", "none.ogg"), r"none\.ogg is missing"),
    ("manifest", change(PLAIN, "1.25", "soon"), r"train\.tsv:2: offset or duration is not a number \(.*'soon'\)"),
    ("manifest", change(PLAIN, "\tme", ""), r"train\.tsv:2 has 6 of 7 columns: correct the line"),
    ("manifest", empty(PLAIN), r"train\.tsv has no row: copy it again, or remove it"),
]


@pytest.mark.parametrize(("layout", "damage", "message"), FAULTS)
def test_a_fault_is_one_clear_error(
    tmp_path: Path, layout: str, damage: Callable[[Path], None], message: str | None
) -> None:
    pair = MAKERS[layout](tmp_path)
    damage(tmp_path)
    if message is None:
        assert len(read(pair)) == 3
        return
    with pytest.raises(ValueError, match=message) as caught:
        read(pair)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"audio": ["a"]}', r"train\.jsonl:1: audio is no text or number"),
        ('{"audio": "a"', r"train\.jsonl:1 is not valid JSON"),
        ("[1]", r"train\.jsonl:1 is no JSON object"),
        ('{"audio": "a"}', r"train\.jsonl:1 lacks src_text and tgt_text: add one of them"),
    ],
)
def test_faults_of_json_lines_are_reported(tmp_path: Path, content: str, message: str) -> None:
    write(tmp_path / "en-de" / "manifest" / "train.jsonl", content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "en-de")


def test_a_format_that_cannot_be_read_is_reported_with_its_conversion(tmp_path: Path) -> None:
    pair = make_manifest(tmp_path)
    write(tmp_path / "a.m4a", b"\0\0\0\x20ftypM4A ")
    tsv(pair / "manifest" / "extra.tsv", [{"audio": "../../a.m4a", "src_text": "a", "tgt_text": "b"}])
    with pytest.raises(ValueError, match=r"a\.m4a: cannot be read as audio .*: convert it, .*`ffmpeg -i a\.m4a -ar"):
        read(pair, "extra")


def test_low_rates_are_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = make_manifest(tmp_path)
    write(tmp_path / "low.wav", audio("WAV", 8_000, 1.0, 1))
    tsv(pair / "manifest" / "extra.tsv", [{"audio": "../../low.wav", "src_text": "a", "tgt_text": "b"}] * 2)
    assert [one.length for one in read(pair, "extra")] == [16_000] * 2
    assert caplog.text.count("extra: 1 recordings have fewer than 16000 samples per second") == 1


def test_ids_that_repeat_are_reported(tmp_path: Path) -> None:
    pair = make_manifest(tmp_path)
    rows = [{"audio": "../../audio/dev.ogg", "src_text": "a", "tgt_text": "b", "id": "one"}] * 2
    tsv(pair / "manifest" / "extra.tsv", rows)
    with pytest.raises(ValueError, match=r"two segments of extra have the id 'one': rename one of them"):
        read(pair, "extra")


def test_an_empty_reference_is_named_by_file_and_line(tmp_path: Path) -> None:
    pair = make_manifest(tmp_path)
    change("my-en-de/manifest/dev.tsv", "de dev das haus am see 0", "")(tmp_path)
    with pytest.raises(ValueError, match=r"tgt_text in .*dev\.tsv:2 is empty, so it cannot be scored"):
        prepare(pair, tmp_path / "out", OPTIONS)


def test_the_layout_must_be_clear(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no corpus of the pair en-de: arrange it as one of mustc: PAIR/data/"):
        open_corpus(tmp_path / "en-de")
    for layout, reader in LAYOUTS.items():
        with pytest.raises(ValueError, match=f"no corpus of layout {layout}: arrange it as"):
            reader(tmp_path / "en-de")
    make_europarl_st(tmp_path)
    make_covost2(tmp_path)
    with pytest.raises(ValueError, match=r"several corpora .*\(covost2 and europarl_st\): add --corpus-format"):
        open_corpus(tmp_path / "en-de")
    assert open_corpus(tmp_path / "en-de", "covost2").splits == ("train", "dev", "test")


def test_segments_of_other_rates_are_those_of_the_resampled_recording(tmp_path: Path) -> None:
    corpus = open_corpus(make_europarl_st(tmp_path))
    segment = corpus.read("test")[0]
    segments_main(["--data", str(tmp_path), "--pair", "en-de", "--split", "test", "--output", str(tmp_path / "cut")])
    cut = read_audio(sorted((tmp_path / "cut" / "test").iterdir())[0])
    whole = load_audio(segment.wav)[segment.start :][: segment.length]
    assert np.abs(cut - whole)[200:-200].max() < 1e-3 * 0.3  # without its neighbours, the ends are filtered otherwise


def test_speeds_repeat_the_training_set_alone(tmp_path: Path) -> None:
    pair = make_manifest(tmp_path)
    plain, fast = tmp_path / "plain", tmp_path / "fast"
    prepare(pair, plain, OPTIONS)
    prepare(pair, fast, Options(vocabulary=Vocabulary("char"), min_frames=1, speeds=(0.9, 1.0, 1.1)))
    before = {row["id"]: row for _, row in manifest.rows(plain / "train_st.tsv")}
    rows = {row["id"]: row for _, row in manifest.rows(fast / "train_st.tsv")}
    assert list(rows) == [*(f"{name}_sp0.9" for name in before), *before, *(f"{name}_sp1.1" for name in before)]
    assert [rows[name]["n_frames"] for name in ("train_0_sp0.9", "train_0", "train_0_sp1.1")] == ["137", "123", "112"]
    assert {row["tgt_text"] for row in rows.values()} == {row["tgt_text"] for row in before.values()}
    assert (fast / "spm_char_st.txt").read_bytes() == (plain / "spm_char_st.txt").read_bytes()
    assert [row["id"] for _, row in manifest.rows(fast / "dev_st.tsv")] == ["dev_0", "dev_1"]
    found = {name: features(fast, rows[name]) for name in rows}
    assert all(len(found[name]) == int(rows[name]["n_frames"]) for name in rows)
    assert np.array_equal(found["train_0"], features(plain, before["train_0"]))
    content = (fast / "fbank80.zip").read_bytes()
    prepare(pair, tmp_path / "again", Options(vocabulary=Vocabulary("char"), min_frames=1, speeds=(0.9, 1.0, 1.1)))
    assert (tmp_path / "again" / "fbank80.zip").read_bytes() == content


def features(folder: Path, row: dict[str, str]) -> np.ndarray:
    name, offset, length = row["audio"].split(":")
    return archive.read(folder / name, int(offset), int(length))


def test_a_faster_recording_is_shorter_and_higher() -> None:
    tone = np.sin(2 * np.pi * 400 * np.arange(16_000) / 16_000).astype(np.float32)
    fast = change_speed(tone, 1.25)
    assert fast.shape == (12_800,)
    assert np.argmax(np.abs(np.fft.rfft(fast))) * 16_000 / 12_800 == 500
    assert np.allclose(fast, soxr.resample(tone, 20_000, 16_000)[:12_800])


@pytest.mark.parametrize(
    ("value", "message"),
    [("0.9,fast", "not a list of numbers"), ("3", r"from 0\.5 to 2 \(3\)"), ("1,1.0", r"repeats a speed \(1,1\)")],
)
def test_wrong_speeds_are_reported(
    tmp_path: Path, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        prepare_main(["--data", str(tmp_path), "--pairs", "en-de", "--speed-perturb", value])
    assert re.search(message, f"{ending.value} {capsys.readouterr().err}")
