"""Long recordings made of segments: the same for equal seeds, each segment where the list says, noise of its level."""

import numpy as np
import pytest
import soundfile
import yaml

from examples.long_recordings.__main__ import main
from examples.long_recordings.rows import of_drift, of_sentences, of_silence, of_stream, render
from examples.long_recordings.streams import Shape, join, trim, white
from mla_fairseq.data.mustc import MuSTC
from mla_fairseq.errors import UserError
from mla_fairseq.speech import read_audio
from mla_fairseq.streaming import Emission

RATE = 16_000


def tone(seconds: float) -> np.ndarray:
    return (0.5 * np.sin(np.arange(round(seconds * RATE)) / 5)).astype(np.float32)


def level(samples: np.ndarray) -> float:
    return 10 * np.log10(np.square(samples.astype(np.float64)).mean())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus of two talks with three segments, each with 0.1 s of silence at both ends."""
    root = tmp_path_factory.mktemp("corpus")
    folder = root / "en-de" / "data" / "tst-COMMON"
    (folder / "wav").mkdir(parents=True)
    (folder / "txt").mkdir()
    silence, entries = np.zeros(RATE // 10, np.float32), []
    for name, count in (("a", 2), ("b", 1)):
        segment = np.concatenate((silence, tone(0.8), silence))
        soundfile.write(folder / "wav" / f"{name}.wav", np.tile(segment, count), RATE, subtype="PCM_16")
        entries += [
            {"wav": f"{name}.wav", "offset": float(i), "duration": 1.0, "speaker_id": name} for i in range(count)
        ]
    (folder / "txt" / "tst-COMMON.yaml").write_text(yaml.dump(entries))
    (folder / "txt" / "tst-COMMON.en").write_text("one\ntwo\nthree\n")
    (folder / "txt" / "tst-COMMON.de").write_text("eins\nzwei\ndrei\n")
    return root


def test_segments_are_where_the_list_says(corpus, tmp_path):
    main(["--data", str(corpus), "--pair", "en-de", "--output", str(tmp_path), "--pause", "0.2", "0.4"])
    made = MuSTC(tmp_path / "en-de").read("tst-COMMON")
    assert [(one.source, one.target, one.speaker) for one in made] == [
        ("one", "eins", "a"), ("two", "zwei", "a"), ("three", "drei", "b")
    ]  # fmt: skip
    old = MuSTC(corpus / "en-de").read("tst-COMMON")
    for new, before in zip(made, old, strict=True):
        samples = read_audio(new.wav, new.start, new.length)
        assert np.array_equal(samples, read_audio(before.wav, before.start, before.length))
    ends = [0, *(one.start + one.length for one in made)]
    starts = [*(one.start for one in made), len(read_audio(made[0].wav))]
    pauses = [(start - end) / RATE for start, end in zip(starts, ends, strict=True)]
    assert len(set(pauses)) == 4 and all(0.2 <= pause <= 0.4 for pause in pauses)


def test_the_seed_decides(corpus, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        main(["--data", str(corpus), "--pair", "en-de", "--output", str(tmp_path / name), "--seed", str(seed)])
    first, same, other = ((tmp_path / name / "en-de/data/tst-COMMON/wav/stream_000.wav").read_bytes() for name in "abc")
    assert first == same and first != other


def test_recordings_have_the_length_that_was_asked_for(corpus, tmp_path):
    main(["--data", str(corpus), "--pair", "en-de", "--output", str(tmp_path), "--minutes", "0.03"])
    assert [one.wav.name for one in MuSTC(tmp_path / "en-de").read("tst-COMMON")] == [
        "stream_000.wav", "stream_000.wav", "stream_001.wav"
    ]  # fmt: skip


def test_nothing_is_left_between_trimmed_segments():
    silence = np.zeros(RATE // 2, np.float32)
    samples, places = join([np.concatenate((silence, tone(0.5), silence))] * 2, Shape((0, 0), trimmed=True))
    assert len(samples) == RATE and places == [(0, RATE // 2), (RATE // 2, RATE // 2)]
    assert np.array_equal(trim(silence), silence)  # it has no speech to keep


@pytest.mark.parametrize("decibels", [-30.0, -50.0])
def test_noise_has_its_level(decibels):
    assert level(white(RATE, decibels, np.random.default_rng(1))) == pytest.approx(decibels, abs=0.2)
    clean, _ = join([tone(0.5)] * 4, Shape(floor=None))
    noisy, _ = join([tone(0.5)] * 4, Shape(floor=None, noise=decibels))
    assert level(noisy - clean) == pytest.approx(decibels, abs=0.2)


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--pause", "0.4", "0.2"], "the pauses are from 0.4 to 0.2 s"),
        (["--noise", "3"], "the noise has 3.0 dB"),
        (["--minutes", "0"], "0.0 minutes"),
        (["--pair", "en-fr"], "en-fr"),
    ],
)
def test_mistakes_are_reported(corpus, tmp_path, flags, said):
    with pytest.raises((UserError, SystemExit), match=said):
        main(["--data", str(corpus), "--pair", "en-de", "--output", str(tmp_path / "out"), *flags])
    assert not (tmp_path / "out").exists()


class Writer:
    """Writes a word with the first sound, and others at the end of each recording that has sound."""

    def __init__(self):
        self.heard = False

    def push(self, samples, final):
        first = not self.heard and bool(np.any(samples))
        self.heard |= first
        return [Emission("eins", 0)] * first + [Emission("zwei drei", 0)] * (final and self.heard)


def test_words_and_their_times_are_counted():
    row = of_sentences([tone(1.0), np.zeros(RATE, np.float32)], ["eins zwei drei", "vier"], Writer)
    assert (row.words, row.expected, row.empty) == (3, 4, 1)
    assert (row.first, row.last) == (0.12, 0.0)  # pieces of 120 ms
    assert row.yaal <= row.yaal_ca < row.yaal + 100
    assert (
        render({"sentences": row})
        .splitlines()[2]
        .startswith(f"| sentences | {row.bleu:.1f} | {row.chrf:.1f} | 3 | 4 |")
    )


def test_silent_recordings_have_no_scores():
    assert of_silence(0.01, None, Writer).words == 0
    row = of_silence(0.01, -40, Writer)
    assert row.words == 3 and "| noise | - | - | 3 | 0 | - |" in render({"noise": row})


def test_the_words_of_a_recording_belong_to_its_segments():
    pytest.importorskip("omnisteval", reason="OmniSTEval aligns the words: install the extra long-form")
    row = of_stream([tone(1.0), tone(1.0)], ["eins", "zwei drei"], Writer, Shape((0.5, 0.5), floor=None))
    assert (row.words, row.expected, row.empty, row.chrf) == (3, 3, 0, 100)
    # the first word comes at 0.6 s, the others at 3.5 s; the segments are from 0.5 to 1.5 s and from 2 to 3 s
    assert (row.first, row.last) == (pytest.approx(0.8), pytest.approx(-0.2))


def test_several_recordings_are_scored_together():
    pytest.importorskip("omnisteval", reason="OmniSTEval aligns the words: install the extra long-form")
    shape = Shape((0.5, 0.5), floor=None, minutes=1 / 60)
    row = of_stream([tone(1.0), tone(1.0)], ["eins zwei drei", "eins zwei drei"], Writer, shape)
    # each recording has its words at 0.6 s and at its end of 2 s; its segment is from 0.5 to 1.5 s
    assert (row.words, row.expected, row.empty, row.chrf) == (6, 6, 0, 100)
    assert (row.first, row.last) == (pytest.approx(0.1), pytest.approx(0.5))


def test_the_first_and_the_last_minutes_of_a_recording_are_compared():
    pytest.importorskip("omnisteval", reason="OmniSTEval aligns the words: install the extra long-form")
    pieces, references = [tone(1.0)] * 3, ["eins zwei drei"] * 3
    rows = of_drift(pieces, references, Writer, Shape((0.5, 0.5), floor=None), 6 / 60, 2 / 60)
    first, last = rows.values()
    assert list(rows) == ["first 0.0333333 of 0 minutes", "last 0.0333333 of 0 minutes"]
    assert first.expected == last.expected == 6
    assert 0 < first.words + last.words <= 3  # the only words
