"""A broken folder is reported in one line when it is loaded: the file, the place in it, and the fix."""

import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("fairseq")

from mla_fairseq.data import archive, manifest, prepare_speech
from mla_fairseq.data.check_manifest import check_manifest
from mla_fairseq.data.prepare import ARCHIVE, Options, prepare
from mla_fairseq.data.vocabulary import Vocabulary
from mla_fairseq.errors import UserError
from mla_fairseq.tasks.features import FeatureError
from mla_fairseq.tasks.speech_to_text_mla import SpeechToTextMLATask
from mla_fairseq.tasks.text_to_speech_mla import TextToSpeechMLATask
from tests.data.conftest import SPLITS, Talk, write_split
from tests.data.voice import write_voice

CONFIG, STATISTICS, DICTIONARY, MODEL = "config_st.yaml", "gcmvn.npz", "spm_char_st.txt", "spm_char_st.model"
MANIFEST = "train_st.tsv"
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder, which tests copy."""
    root = tmp_path_factory.mktemp("whole")
    for split in SPLITS:
        write_split(root / "en-de", split, {f"ted_{split}": Talk()})
    options = Options(vocabulary=Vocabulary("char"), cmvn="global", specaugment="lb")
    return prepare(root / "en-de", root / "data", options).parent


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "data"))


def load(folder: Path, split: str = "train_st", task: type = SpeechToTextMLATask, config: str = CONFIG):
    """Return fairseq's dataset for a split of a prepared folder."""
    options = {"seed": 1, "n_frames_per_step": 1, "tensorboard_logdir": ""}
    task = task.setup_task(Namespace(data=str(folder), config_yaml=config, **options))
    task.load_dataset(split)
    return task.datasets[split]


def set_(**values: object) -> Damage:
    """Change keys of the configuration; ``...`` removes one."""

    def damage(folder: Path) -> None:
        settings = yaml.safe_load((folder / CONFIG).read_text()) | values
        settings = {key: value for key, value in settings.items() if value is not ...}
        (folder / CONFIG).write_text(yaml.safe_dump(settings))

    return damage


def statistics(**arrays: np.ndarray) -> Damage:
    return lambda folder: np.savez(folder / STATISTICS, **arrays)


def cell(column: str, value: str, row: int = 1) -> Damage:
    """Change a cell of the training manifest."""

    def damage(folder: Path) -> None:
        lines = [line.split("\t") for line in (folder / MANIFEST).read_text(encoding="utf-8").split("\n")]
        lines[row][lines[0].index(column)] = value
        (folder / MANIFEST).write_text("\n".join("\t".join(line) for line in lines), encoding="utf-8")

    return damage


def lines(name: str, edit: Callable[[list[str]], list[str]]) -> Damage:
    """Change the lines of a file."""

    def damage(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text("\n".join(edit(text.rstrip("\n").split("\n"))) + "\n", encoding="utf-8")

    return damage


def raw(name: str, edit: Callable[[bytes], bytes]) -> Damage:
    return lambda folder: (folder / name).write_bytes(edit((folder / name).read_bytes()))


ONES, ZERO = np.ones(80, np.float32), np.where(np.arange(80) == 3, 0, 1).astype(np.float32)
NAN = np.where(np.arange(80) == 3, np.nan, 1).astype(np.float32)
CASES: dict[str, tuple[Damage, str]] = {
    "statistics cut": (
        raw(STATISTICS, lambda data: data[:99]),
        r"gcmvn\.npz is not an npz of mean and std \(.*copy it",
    ),
    "statistics empty": (raw(STATISTICS, lambda data: b""), r"gcmvn\.npz is not an npz of mean and std"),
    "statistics of text": (raw(STATISTICS, lambda data: b"mean"), r"gcmvn\.npz is not an npz of mean and std"),
    "statistics of pickles": (
        lambda folder: np.savez(folder / STATISTICS, mean=np.array([{}]), std=ONES),
        r"gcmvn\.npz is not an npz of mean and std",
    ),
    "statistics of other names": (statistics(mu=ONES, std=ONES), r"gcmvn\.npz is not .*mean is not a file"),
    "statistics of 40 bins": (
        statistics(mean=ONES[:40], std=ONES[:40]),
        r"gcmvn\.npz: mean is not 80 floats, one for each bin \(float32 \(40,\)\)",
    ),
    "statistics of integers": (
        statistics(mean=ONES.astype(int), std=ONES),
        r"mean is not 80 floats.*\(int64 \(80,\)\)",
    ),
    "mean is NaN": (statistics(mean=NAN, std=ONES), r"gcmvn\.npz: mean of bin 3 is not a number \(nan\)"),
    "deviation 0": (statistics(mean=ONES, std=ZERO), r"gcmvn\.npz: std of bin 3 is not a number above 0 \(0\.0\)"),
    "deviation below 0": (statistics(mean=ONES, std=-ONES), r"std of bin 0 is not a number above 0 \(-1\.0\)"),
    "deviation infinite": (statistics(mean=ONES, std=ONES * np.inf), r"std of bin 0 is not a number above 0"),
    "configuration is not UTF-8": (
        raw(CONFIG, lambda data: b"audio_root: ''\nvocab_filename: w\xf6rter\n"),
        r"config_st\.yaml is not UTF-8 \(line 2, byte 32: 0xf6, .*iconv",
    ),
    "not yaml": (
        raw(CONFIG, lambda data: b"a: [b"),
        r"config_st\.yaml is not a data configuration \(.*line 1.*correct",
    ),
    "runs code": (
        raw(CONFIG, lambda data: b"a: !!python/object/apply:os.getcwd []"),
        r"is not a data configuration \(line 1 has a tag",
    ),
    "a list": (raw(CONFIG, lambda data: b"- a\n"), r"config_st\.yaml is not a data configuration"),
    "bins as text": (
        set_(input_feat_per_channel="80"),
        r"config_st\.yaml: input_feat_per_channel is not a whole number above 0 \('80'\): correct it",
    ),
    "bins as bool": (
        set_(input_feat_per_channel=True),
        r"input_feat_per_channel is not a whole number above 0 \(True\)",
    ),
    "no audio root": (set_(audio_root=None), r"audio_root is not a text \(None\)"),
    "dictionary as number": (set_(vocab_filename=7), r"vocab_filename is not a text \(7\)"),
    "dictionary elsewhere": (
        set_(vocab_filename="dict.txt"),
        r"dict\.txt is missing: prepare the data again with mla-pre",
    ),
    "shuffle as text": (set_(shuffle="no"), r"shuffle is not true or false \('no'\)"),
    "section is a list": (set_(global_cmvn=["gcmvn.npz"]), r"global_cmvn is not a section"),
    "no transforms": (set_(feature_transforms=None), r"feature_transforms is not a section \(None\)"),
    "misspelled key": (
        set_(feature_transfroms={"*": []}),
        r"unknown key \(feature_transfroms\): did you mean feature_transforms\?",
    ),
    "unknown transform": (
        set_(feature_transforms={"*": ["globl_cmvn"]}),
        r"feature_transforms of \* names an unknown transform \('globl_cmvn'\): use .*global_cmvn",
    ),
    "transform as text": (
        set_(feature_transforms={"*": "global_cmvn"}),
        r"feature_transforms of \* is not a list \('global_cmvn'\): write it as \[global_cmvn\]",
    ),
    "no statistics named": (set_(global_cmvn=...), r"global_cmvn has no stats_npz_path: add it"),
    "statistics as number": (set_(global_cmvn={"stats_npz_path": 1}), r"global_cmvn has no stats_npz_path"),
    "no section of masks": (set_(specaugment=...), r"has no section specaugment, but uses it"),
    "misspelled mask": (
        set_(specaugment={"time_mask_n": 1}),
        r"specaugment has an unknown key \(time_mask_n\): use .*time_mask_N",
    ),
    "mask as text": (set_(specaugment={"time_mask_N": "1"}), r"time_mask_N of specaugment is not a number.*\('1'\)"),
    "mask without width": (
        set_(specaugment={"freq_mask_N": 1}),
        r"freq_mask_N of specaugment has no freq_mask_F above",
    ),
    "unknown tokenizer": (
        set_(bpe_tokenizer={"bpe": "sentencepeace"}),
        r"bpe_tokenizer is unknown \('sentencepeace'\)",
    ),
    "no tokenizer": (set_(bpe_tokenizer=...), r"config_st\.yaml has no bpe_tokenizer, but spm_char_st\.txt has"),
    "no model named": (set_(bpe_tokenizer={"bpe": "sentencepiece"}), r"bpe_tokenizer has no sentencepiece_model"),
    "no speakers": (set_(speaker_set_filename="speakers.txt"), r"speakers\.txt is missing"),
    "dictionary in another order": (
        lines(DICTIONARY, lambda rows: [rows[1], rows[0], *rows[2:]]),
        r"spm_char_st\.txt has '.' where spm_char_st\.model has '.' \(piece 1\).*copy both files again",
    ),
    "dictionary cut": (
        lines(DICTIONARY, lambda rows: rows[:-2]),
        r"spm_char_st\.txt lacks 2 of \d+ pieces of spm_char",
    ),
    "symbol that is no piece": (
        lines(DICTIONARY, lambda rows: [*rows, "zz 1"]),
        r"spm_char_st\.txt has 1 symbols that spm_char_st\.model lacks, such as 'zz': copy both files again",
    ),
    "symbol twice": (
        lines(DICTIONARY, lambda rows: [*rows, rows[4]]),
        r"spm_char_st\.txt:\d+ repeats the symbol '.' \(it is on an earlier line\)",
    ),
    "special symbol": (lines(DICTIONARY, lambda rows: ["</s> 1", *rows]), r"txt:1 repeats .*'</s>' \(it is built into"),
    "no count": (lines(DICTIONARY, lambda rows: [rows[0], "x", *rows[1:]]), r"txt:2 is not SYMBOL COUNT \('x'\)"),
    "count as text": (lines(DICTIONARY, lambda rows: ["x one", *rows]), r"txt:1 is not SYMBOL COUNT \('x one'\)"),
    "empty dictionary": (raw(DICTIONARY, lambda data: b""), r"spm_char_st\.txt:1 is not SYMBOL COUNT"),
    "dictionary in Latin-1": (
        raw(DICTIONARY, lambda data: data.decode().encode("latin-1", "replace")),
        r"spm_char_st\.txt is not UTF-8 \(line \d+, byte \d+: 0xfc",
    ),
    "dictionary with a mark": (raw(DICTIONARY, lambda data: b"\xef\xbb\xbf" + data), r"begins with a byte order mark"),
    "model cut": (raw(MODEL, lambda data: data[:99]), r"spm_char_st\.model is not a SentencePiece model, or is broken"),
    "model of text": (raw(MODEL, lambda data: b"no model"), r"spm_char_st\.model is not a SentencePiece model"),
    "manifest in Latin-1": (
        raw(MANIFEST, lambda data: data.decode().encode("latin-1")),
        r"train_st\.tsv is not UTF-8 \(line \d+",
    ),
    "frames as text": (cell("n_frames", "many"), r"train_st\.tsv:2 has an n_frames that is not .* above 0 \('many'\)"),
    "no frames": (
        cell("n_frames", "0", 2),
        r"train_st\.tsv:3 has an n_frames that is not a whole number above 0 \('0'\)",
    ),
    "fewer frames than none": (cell("n_frames", "-3"), r"n_frames that is not a whole number above 0 \('-3'\)"),
    "half a frame": (cell("n_frames", "48.5"), r"n_frames that is not a whole number above 0 \('48\.5'\)"),
    "frames of thousands of digits": (
        cell("n_frames", "9" * 5000),
        r"tsv:2 has an n_frames that is not .*\('9{200}'\)",
    ),
    "place of thousands of digits": (cell("audio", f"{ARCHIVE}:{'9' * 5000}:1"), r"tsv:2 has an audio that is neither"),
    "wrong number of frames": (
        cell("n_frames", "47"),
        r"train_st\.tsv:2 is an array of shape \(78, 80\) in .*fbank80\.zip, but n_frames is 47",
    ),
    "audio without length": (
        cell("audio", f"{ARCHIVE}:100"),
        r"tsv:2 has an audio that is neither .*\('fbank80\.zip:1",
    ),
    "audio at no number": (cell("audio", f"{ARCHIVE}:a:b"), r"tsv:2 has an audio that is neither"),
    "audio outside": (cell("audio", f"{ARCHIVE}:99999999:9"), r"tsv does not match .*fbank80\.zip \(1 places where no"),
    "audio elsewhere": (cell("audio", "nowhere.npy"), r"tsv:2: .*nowhere\.npy is missing"),
    "no id": (cell("id", "", 2), r"tsv:3 has no id"),
    "id twice": (lines(MANIFEST, lambda rows: [*rows, rows[1]]), r"tsv:5 repeats the id 'ted_train_0'"),
    "empty text": (cell("tgt_text", " "), r"tsv:2 has an empty tgt_text \(id ted_train_0\)"),
    "null character": (cell("tgt_text", "\0"), r"train_st\.tsv:2 has a null character"),
    "column twice": (cell("speaker", "id", 0), r"train_st\.tsv has a column twice"),
    "row cut": (lines(MANIFEST, lambda rows: [*rows[:-1], rows[-1][:9]]), r"train_st\.tsv:4 has 1 of 8 columns"),
}


@pytest.mark.parametrize(("damage", "message"), CASES.values(), ids=CASES)
def test_a_fault_is_reported_in_one_line(folder: Path, damage: Damage, message: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=rf"^error: .*{message}") as ending:
        load(folder)
    assert "\n" not in str(ending.value)
    assert str(folder) in str(ending.value), "the message names the file"


def test_a_tokenizer_whose_package_is_missing_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    set_(bpe_tokenizer={"bpe": "hf_byte_bpe"})(folder)
    with pytest.raises(UserError, match=r"bpe_tokenizer of .*config_st\.yaml needs a package \(.*: install it, or use"):
        load(folder)


def test_a_whole_folder_loads(folder: Path) -> None:
    assert len(load(folder)) == 3
    cell("tgt_text", "x" * 140_000)(folder)
    assert max(map(len, load(folder).tgt_texts)) == 140_000, "fairseq's reader alone refuses such a text"


def test_an_evaluation_set_has_texts_or_has_none(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    cell("tgt_text", "", 2)(folder)
    shutil.copy(folder / MANIFEST, folder / "dev_st.tsv")
    with pytest.raises(UserError, match=r"dev_st\.tsv:3 has an empty tgt_text \(id ted_train_1\): correct the line"):
        load(folder, "dev_st")
    for row in (1, 3):
        cell("tgt_text", "", row)(folder)
    shutil.copy(folder / MANIFEST, folder / "dev_st.tsv")
    assert set(load(folder, "dev_st").tgt_texts) == {""}
    assert "dev_st.tsv has no texts: scores of this set mean nothing" in caplog.text


def test_a_section_that_nothing_uses_is_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    set_(feature_transforms={"*": []})(folder)
    load(folder)
    assert "the section global_cmvn has no effect" in caplog.text


def test_a_dictionary_may_have_more_symbols_than_the_model(folder: Path) -> None:
    lines(DICTIONARY, lambda rows: ["<lang:de> 1", *rows, "madeupword0000 0"])(folder)
    assert len(load(folder)) == 3


FEATURES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "NaN": (
        lambda x: np.where(np.arange(len(x))[:, None] == 5, np.nan, x),
        "frame 5 of the features is not finite, .*",
    ),
    "infinity": (
        lambda x: np.where(np.arange(len(x))[:, None] == 5, np.inf, x),
        "frame 5 of the features is not finite, .*",
    ),
    "too large": (lambda x: x * 1e30, r"frame 0 of the features is not finite, or above 1e\+06"),
    "40 bins": (lambda x: x[:, :40], r"the features have shape \(78, 40\), but \(frames, 80\) is needed"),
    "one bin": (lambda x: x[:, :1], r"the features have shape \(78, 1\), but .* is needed"),
    "one dimension": (lambda x: x[:, 0], r"the features have shape \(78,\), but .* is needed"),
    "integers": (lambda x: x.astype(np.int16), r"the features are not float \(int16\)"),
    "cut": (lambda x: x[:50], r"there are 50 frames, but n_frames in the manifest is 78"),
}


def with_array(folder: Path, edit: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Store the edited features of the first utterance beside the archive, where no check of the folder sees them."""
    _, row = next(manifest.rows(folder / MANIFEST))
    match = manifest.SLICE.fullmatch(row["audio"])
    np.save(folder / "first.npy", edit(archive.read(folder / ARCHIVE, int(match[2]), int(match[3]))))
    cell("audio", "first.npy")(folder)
    return folder


@pytest.mark.parametrize(("edit", "message"), FEATURES.values(), ids=FEATURES)
def test_broken_features_are_reported_when_they_are_read(folder: Path, edit: Callable, message: str) -> None:
    dataset = load(with_array(folder, edit))
    with pytest.raises(FeatureError, match=rf"first\.npy \(utterance ted_train_0\): {message}: prepare the data again"):
        dataset[0]
    assert len(dataset[1].source) > 0, "other utterances are read"


def test_features_of_double_precision_are_read(folder: Path) -> None:
    set_(feature_transforms={"*": ["global_cmvn"]})(folder)  # without random masks
    expected = load(folder)[0].source
    assert load(with_array(folder, lambda x: x.astype(np.float64)))[0].source.equal(expected)


def test_a_cut_array_is_reported_when_it_is_read(folder: Path) -> None:
    with_array(folder, lambda x: x)
    raw("first.npy", lambda data: data[:999])(folder)
    with pytest.raises(
        FeatureError, match=r"first\.npy \(utterance ted_train_0\): Failed to read all data .*prepare the data"
    ):
        load(folder)[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_features_end_a_command_in_one_line(folder: Path, workers: int) -> None:
    """Read as fairseq-train does: in a thread, or in a worker process."""
    task = SpeechToTextMLATask.setup_task(
        Namespace(data=str(with_array(folder, FEATURES["NaN"][0])), config_yaml=CONFIG, seed=1)
    )
    task.load_dataset("train_st")
    batches = task.get_batch_iterator(task.dataset("train_st"), 500, num_workers=workers, data_buffer_size=10)
    with pytest.raises(UserError, match=r"^error: .*first\.npy \(utterance ted_train_0\): frame 5 .*again$") as ending:
        list(batches.next_epoch_itr())
    assert "\n" not in str(ending.value)
    with pytest.raises(UserError, match=r"^error: .*first\.npy"):
        print(batches.first_batch)


def test_other_numbers_of_a_row_are_read_from_the_archive(folder: Path) -> None:
    """Arrays of half precision have other sizes, and are whole."""
    rows = [row for _, row in manifest.rows(folder / MANIFEST)]
    with archive.Writer(folder / "half.zip") as writer:
        for row in rows:
            writer.add(f"{row['id']}.npy", np.zeros((int(row["n_frames"]), 80), np.float16))
    for number, (offset, length) in enumerate(archive.members(folder / "half.zip").values(), start=1):
        cell("audio", f"half.zip:{offset}:{length}", number)(folder)
    assert load(folder)[0].source.shape == (int(rows[0]["n_frames"]), 80)


def test_the_check_of_a_manifest_is_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "check", lambda *args, **kwargs: None)  # its cost is that of the zip's directory
    size = 128 + 320 * 100
    row = manifest.Row("a", "f.zip:0:1", 100, "ein haus am see", "spk", "a house", "en", "de")
    manifest.write(tmp_path / "t.tsv", [replace(row, id=f"a_{i}", audio=f"f.zip:{i}:{size}") for i in range(10_000)])
    began = time.process_time()
    check_manifest(tmp_path / "t.tsv", tmp_path, 80)
    assert time.process_time() - began < 1, "10,000 rows; 250,000 took 1.2 s"


SPEECH: dict[str, tuple[dict, str]] = {
    "no features": ({"features": ...}, "has no section features: prepare the data with mla-prepare-tts"),
    "no hop": ({"features": {"sample_rate": 22050}}, "features has no hop_length"),
    "rate as text": (
        {"features": {"sample_rate": "22050", "hop_length": 256}},
        r"sample_rate of features .*\('22050'\)",
    ),
    "a rate that does not fit": ({"features": {"sample_rate": 8000, "hop_length": 256}}, "f_min and f_max must be"),
    "unknown unit": ({"spoken_text": {"unit": "letters"}}, r"unknown --unit \('letters'\)"),
    "unknown setting": ({"spoken_text": {"units": "characters"}}, "unexpected keyword argument 'units'"),
    "unknown vocoder": ({"vocoder": {"type": "wavenet"}}, r"the type of vocoder is unknown \('wavenet'\): use one of"),
    "speaker twice": ({"speaker_set_filename": "twice.txt"}, r"twice\.txt:2 repeats 'a'"),
    "empty speaker": ({"speaker_set_filename": "empty.txt"}, r"empty\.txt:2 is empty"),
    "unknown speaker": ({"speaker_set_filename": "others.txt"}, r"train_st\.tsv:2 has a speaker .*\('007'\)"),
    "broken embeddings": (
        {"speaker_set_filename": "others.txt", "speaker_emb_filename": "others.txt"},
        r"others\.txt is not a numpy array",
    ),
    "too few embeddings": (
        {"speaker_set_filename": "others.txt", "speaker_emb_filename": "one.npy"},
        r"one\.npy is not a finite row for each of 2 speakers \(\(1, 4\)\)",
    ),
}


@pytest.mark.parametrize(("settings", "message"), SPEECH.values(), ids=SPEECH)
def test_faults_of_a_folder_of_text_to_speech(folder: Path, settings: dict, message: str) -> None:
    for name, text in {"twice.txt": "a\na\n", "empty.txt": "a\n\nb\n", "others.txt": "a\nb\n"}.items():
        (folder / name).write_text(text)
    np.save(folder / "one.npy", np.ones((1, 4)))
    features = {"sample_rate": 22050, "hop_length": 256, "n_mels": 80}
    set_(**({"features": features, "spoken_text": {"unit": "characters"}} | settings))(folder)
    with pytest.raises(UserError, match=message) as ending:
        load(folder, task=TextToSpeechMLATask)
    assert "\n" not in str(ending.value)


def test_a_dictionary_without_a_symbol_of_the_training_set_is_refused(tmp_path: Path) -> None:
    options = prepare_speech.Options(dev=2, test=2)
    folder = prepare_speech.prepare(write_voice(tmp_path / "voice"), tmp_path / "data", options).parent
    cut = (folder / "dict.txt").read_text().splitlines(keepends=True)[:-2]  # rare symbols are at the end
    load(folder, "train", TextToSpeechMLATask, "config.yaml")
    (folder / "dict.txt").write_text("".join(cut))
    with pytest.raises(UserError, match=r"train\.tsv:\d+ has a symbol that the dictionary lacks \('.'\): correct"):
        load(folder, "train", TextToSpeechMLATask, "config.yaml")
    load(folder, "test", TextToSpeechMLATask, "config.yaml")  # new texts may have new symbols
