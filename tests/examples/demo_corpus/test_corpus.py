"""The demo's speech corpus: complete, equal for equal seeds, with unseen test sentences; mistakes are refused."""

import json
import multiprocessing
import shutil
import sys

import numpy as np
import pytest
import soundfile

pytest.importorskip("espeakng_loader")

from examples.demo_corpus import espeak
from examples.demo_corpus.__main__ import main
from examples.demo_corpus.corpus import VOICES, make_corpus
from examples.demo_corpus.espeak import Voice
from mla_fairseq.data.mustc import MuSTC
from mla_fairseq.errors import UserError
from mla_fairseq.speech import read_audio
from tests.killing import killed, needs_proc, wait_for

SIZES = {"train": 70, "dev": 9, "tst-COMMON": 12}


def make(out, **options):
    return make_corpus(out, SIZES["train"], SIZES["dev"], SIZES["tst-COMMON"], **{"workers": 2, **options})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make(tmp_path_factory.mktemp("demo"))


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@needs_proc
def test_a_killed_run_leaves_no_process_and_is_completed(root, tmp_path):
    with killed(make, tmp_path):
        wait_for(lambda: list(tmp_path.rglob("*.wav")))
    assert contents(make(tmp_path)) == contents(root)


def texts(root, split, language):
    return (root / "data" / split / "txt" / f"{split}.{language}").read_text(encoding="utf-8").splitlines()


def test_is_a_corpus_in_mustc_layout(root):
    corpus = MuSTC(root)
    assert corpus.languages == ("en", "de")
    for split, count in SIZES.items():
        segments = corpus.read(split)
        assert [segment.source for segment in segments] == texts(root, split, "en")
        assert [segment.target for segment in segments] == texts(root, split, "de")
        assert len(segments) == count


def test_nothing_unfinished_is_left(root):
    assert not list(root.rglob("*.part"))
    assert {path.suffix for path in root.rglob("*") if path.is_file()} == {".wav", ".yaml", ".en", ".de", ".json"}


def test_talks_hold_many_sentences_of_one_voice(root):
    segments = MuSTC(root).read("train")
    speakers = {
        wav: {segment.speaker for segment in segments if segment.wav == wav} for wav in {s.wav for s in segments}
    }
    assert 2 <= len(speakers) <= 4
    assert all(len(names) == 1 for names in speakers.values())
    assert len({segment.speaker for segment in segments}) == len(speakers)


def test_audio_is_16_khz_mono_16_bit(root):
    for path in root.rglob("*.wav"):
        info = soundfile.info(str(path))
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")


def level(samples):
    """Return the root mean square in 16-bit units."""
    return np.sqrt(np.mean(np.square(samples * 32768)))


def test_segments_hold_the_speech_and_pauses_none(root):
    """Segments are loud inside, and quiet at both ends and between: drifting offsets would cut speech off."""
    for wav in {segment.wav for segment in MuSTC(root).read("train")}:
        samples, position = read_audio(wav), 0
        for segment in (segment for segment in MuSTC(root).read("train") if segment.wav == wav):
            inside = samples[segment.start : segment.start + segment.length]
            assert level(inside) > 500
            assert 0.5 < segment.length / 16000 < 5
            assert level(samples[position : segment.start]) < 30
            assert level(inside[:400]) < 30
            position = segment.start + segment.length
        assert level(samples[position:]) < 30


def test_no_sample_is_clipped(root):
    peaks = [np.abs(read_audio(path)).max() for path in root.rglob("*.wav")]
    assert max(peaks) < 0.999


@pytest.mark.parametrize("language", ["en", "de"])
def test_held_out_sentences_never_occur_in_train(root, language):
    train, dev, test = (set(texts(root, split, language)) for split in SIZES)
    assert not train & (dev | test)
    assert not dev & test


def test_is_the_same_for_any_number_of_processes(root, tmp_path):
    assert contents(make(tmp_path, workers=1)) == contents(root)


def test_another_seed_gives_other_sentences_and_sounds(root, tmp_path):
    other = make(tmp_path, seed=2)
    assert not set(texts(root, "train", "en")) & set(texts(other, "train", "en"))
    wav = "data/dev/wav/demo_dev_0000.wav"
    assert (other / wav).read_bytes() != (root / wav).read_bytes()


def test_held_out_sets_do_not_depend_on_the_size_of_train(root, tmp_path):
    other = make_corpus(tmp_path, 10, SIZES["dev"], SIZES["tst-COMMON"], workers=2)
    for split in ("dev", "tst-COMMON"):
        assert contents(other / "data" / split) == contents(root / "data" / split)


def test_fewer_voices_and_patterns(tmp_path):
    root = make(tmp_path, voices=1, patterns="simple")
    assert {segment.speaker for segment in MuSTC(root).read("train")} == {"spk.1"}
    assert all(" to " in line or " from " in line for line in texts(root, "train", "en"))


def test_one_voice_alone_at_another_rate(tmp_path):
    slow, fast = (make(tmp_path / str(rate), voice=2, rate=rate, patterns="simple") for rate in (160, 320))
    assert {segment.speaker for segment in MuSTC(slow).read("train")} == {"spk.2"}
    seconds = [sum(segment.length for segment in MuSTC(root).read("train")) for root in (slow, fast)]
    assert seconds[1] < 0.7 * seconds[0]


def test_running_again_does_nothing(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    make(root.parent)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_goes_on_where_it_was_stopped(root, tmp_path):
    """A run that was stopped between two splits and lost a talk gives the same result as an uninterrupted one."""
    copy = tmp_path / "en-de"
    shutil.copytree(root, copy)
    shutil.rmtree(copy / "data" / "dev")
    (copy / "data" / "train" / "wav" / "demo_train_0001.wav").unlink()
    make(tmp_path)
    assert contents(copy) == contents(root)


def test_a_write_that_fails_leaves_no_wav_and_no_list(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("soundfile.write", fails)  # the forked workers have it too
    with pytest.raises(OSError, match="No space left"):
        make(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["made_from.json"]


def test_other_options_are_refused_and_nothing_changes(root):
    before = contents(root)
    with pytest.raises(ValueError, match=r"was made with another seed \(1, not 7\): choose another folder, or delete"):
        make(root.parent, seed=7)
    assert contents(root) == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "en-de" / "data").mkdir(parents=True)
    with pytest.raises(ValueError, match="contains files that this program did not write"):
        make(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 0}, r"too few sentences in train \(0\)"),
        ({"test": -1}, r"too few sentences in tst-COMMON \(-1\)"),
        ({"voices": 9}, r"unknown number of voices \(9\): choose 1 to 6"),
        ({"voice": 7}, r"unknown voice \(7\): choose 1 to 6"),
        ({"rate": 20}, r"rate out of range \(20\): choose 87 to 416 words"),
        ({"patterns": "poems"}, r"unknown pattern \(poems\)"),
        ({"workers": 0}, r"too few processes \(0\)"),
    ],
    ids=["no train", "negative test", "voices", "voice", "rate", "pattern", "workers"],
)
def test_wrong_options_are_named_and_nothing_is_written(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_corpus(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_missing_synthesiser_is_named_with_the_mend(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ValueError, match=r"espeakng-loader is not installed: install the extra .*\[demo\]"):
        make(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_data_deeper_than_the_synthesiser_can_read_is_named(monkeypatch):
    monkeypatch.setattr("espeakng_loader.get_data_path", lambda: "/" + "d" * 170)
    with pytest.raises(ValueError, match=r"paths of less than 160 bytes, so install in .* at least 12 bytes shorter"):
        espeak.locate()


def say(*calls):
    """Speak in another process: speaking here would change the state of the processes forked for the corpora."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.starmap(_say, calls)


def _say(text, voice):
    return espeak.engine().say(text, voice)


def test_voices_differ():
    spoken = say(*[("Good morning.", voice) for voice in VOICES])
    assert len({samples.tobytes() for samples in spoken}) == len(VOICES)


def test_faster_voices_take_less_time():
    slow, fast = say(*[("Good morning.", Voice("gmw/en-US", rate=rate)) for rate in (150, 300)])
    assert len(fast) < 0.8 * len(slow)


def test_an_unknown_voice_is_named():
    with pytest.raises(ValueError, match="espeak-ng has no voice 'gmw/en-Mars'"):
        say(("Good morning.", Voice("gmw/en-Mars")))


def test_command_line(tmp_path, monkeypatch):
    sizes = ["--sentences", "5", "--dev", "2", "--test", "3"]
    others = ["--patterns", "count,price", "--voices", "2", "--seed", "4"]
    monkeypatch.setattr(sys, "argv", ["demo_corpus", "--output", str(tmp_path), *sizes, *others])
    main()
    made_from = json.loads((tmp_path / "en-de" / "made_from.json").read_text())
    assert {key: made_from[key] for key in ("train", "dev", "tst-COMMON", "patterns", "voices", "seed")} == {
        "train": 5, "dev": 2, "tst-COMMON": 3, "patterns": "count,price", "voices": 2, "seed": 4,
    }  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["demo_corpus", "--output", str(tmp_path), "--seed", "5"])
    with pytest.raises(UserError, match=r"error: .* was made with another train \(5, not 6000\)"):
        main()
