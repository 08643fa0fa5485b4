"""Arguments of another usual type are converted, or refused in one clear error where they are given."""

import numpy as np
import pytest
import soundfile
import torch

from mla_fairseq.evaluation import latency
from mla_fairseq.evaluation.results import read_records
from mla_fairseq.speech import FilterBankStream, GlobalCMVN, audio_length, filter_banks, read_audio
from mla_fairseq.speech.mel import MelSpectrogram
from mla_fairseq.speech.resample import Samples
from mla_fairseq.streaming import IncrementalSession, OfflineSession, SearchOptions, Translator, WaitKPolicy
from mla_fairseq.streaming.frontend import Normalisation
from mla_fairseq.streaming.offline_policies import AlignAttPolicy
from mla_fairseq.synthesis.limits import Limits
from mla_fairseq.synthesis.speaker import Speaker
from tests.streaming.conftest import noise

INT16 = noise(1.5, 3)
FLOAT = (INT16 / 32_768).astype(np.float32)


def words(translator: Translator, samples: object, final: object = True, before: object = False) -> list[str]:
    """Return what a session emits for a recording in two segments, the second of which is given."""
    session = IncrementalSession(translator, WaitKPolicy(2, 3))
    emissions = session.push(INT16[:9000], before) + session.push(samples, final)
    return [emission.text for emission in emissions]


@pytest.fixture(scope="module")
def expected(translator) -> list[str]:
    found = words(translator(), INT16[9000:])
    assert len(found) > 2
    return found


FLAGS = [(np.bool_(False), np.bool_(True)), (0, 1), (torch.tensor(False), torch.tensor(True)), (0.0, np.int64(1))]


@pytest.mark.parametrize(("before", "final"), FLAGS, ids=repr)
def test_flags_of_other_types_are_converted(translator, expected: list[str], before: object, final: object) -> None:
    assert words(translator(), INT16[9000:], final, before) == expected


SAMPLES = {
    "float64": FLOAT.astype(float),
    "list": FLOAT.tolist(),
    "tuple": tuple(FLOAT.tolist()),
    "tensor": torch.from_numpy(FLOAT),
    "tensor of int16": torch.from_numpy(INT16),
    "tensor with gradient": torch.from_numpy(FLOAT.copy()).requires_grad_(),
    "other byte order": INT16.astype(">i2"),
    "read-only buffer": np.frombuffer(INT16.tobytes(), np.int16),
    "masked": np.ma.masked_array(INT16),
}


@pytest.mark.parametrize("samples", SAMPLES.values(), ids=SAMPLES)
def test_samples_of_other_types_are_converted(translator, expected: list[str], samples: object) -> None:
    assert words(translator(), samples[9000:]) == expected
    assert np.array_equal(filter_banks(samples), filter_banks(FLOAT))


def test_half_precision_is_read() -> None:
    for samples in (FLOAT.astype(np.float16), torch.from_numpy(FLOAT).bfloat16()):
        assert filter_banks(samples).shape == filter_banks(FLOAT).shape


WRONG_SAMPLES = [
    (None, r"samples are no array \(NoneType\): give an array, a list or a tensor"),
    ("a.wav", r"samples are no array \(str\)"),
    (INT16.tobytes(), r"samples are no array \(bytes\)"),
    ((sample for sample in FLOAT), r"samples are no array \(generator\)"),
    ([[1.0], [1.0, 2.0]], "samples are lists of several lengths"),
    (INT16.tolist(), "samples are int64, but float in .* or int16 is needed"),
    (FLOAT[None], r"samples have shape \(1, 24000\), but one channel"),
]


@pytest.mark.parametrize(("samples", "message"), WRONG_SAMPLES, ids=[message[:30] for _, message in WRONG_SAMPLES])
def test_other_samples_are_refused_and_leave_the_session_as_it_was(
    translator, expected: list[str], samples: object, message: str
) -> None:
    session = IncrementalSession(translator(), WaitKPolicy(2, 3))
    before = session.push(INT16[:9000])
    with pytest.raises(ValueError, match=message):
        session.push(samples)
    with pytest.raises(ValueError, match=r"final must be true or false, but is 'no'"):
        session.push(INT16[9000:], final="no")
    assert [emission.text for emission in before + session.push(INT16[9000:], final=True)] == expected
    with pytest.raises(ValueError, match="samples"):
        filter_banks(samples)


def test_numbers_of_numpy_are_numbers(translator) -> None:
    options = SearchOptions(np.int64(2), np.float32(1), np.float64(0.1), np.int32(20))
    given = IncrementalSession(translator(), WaitKPolicy(np.int64(2), np.int32(3)), options)
    plain = IncrementalSession(translator(), WaitKPolicy(2, 3), SearchOptions(2))
    assert given.push(INT16, True) == plain.push(INT16, True)
    attending = OfflineSession(translator(), AlignAttPolicy(np.int64(2)), layer=np.int64(0), heads=np.array([0, 1]))
    assert attending.push(INT16, True)


@pytest.mark.parametrize("given", ["model.pt", None], ids=repr)
def test_a_session_needs_a_translator(translator, given: object) -> None:
    with pytest.raises(ValueError, match=r"translator of a session is not a Translator \(\w+\): use Translator\.load"):
        IncrementalSession(given, WaitKPolicy(2, 3))
    with pytest.raises(ValueError, match="is not a Translator"):
        OfflineSession(translator().model, AlignAttPolicy(2))


def test_paths_may_be_texts(translator, data, tmp_path) -> None:
    assert np.array_equal(Normalisation.load(str(data / "config_st.yaml")).std, translator().normalisation.std)
    soundfile.write(tmp_path / "a.wav", INT16, 16_000)
    assert audio_length(str(tmp_path / "a.wav")) == 24_000
    assert len(read_audio(str(tmp_path / "a.wav"), np.int64(3), torch.tensor(5))) == 5
    with pytest.raises(ValueError, match=r"a\.wav: offset and frames must be integers, but are 3\.5 and 5"):
        read_audio(str(tmp_path / "a.wav"), 3.5, 5)
    GlobalCMVN().add(filter_banks(FLOAT)).save(str(tmp_path / "g.npz"))
    assert GlobalCMVN.load(str(tmp_path / "g.npz"))[0].shape == (80,)
    with pytest.raises(ValueError, match="no record in"):
        read_records(str(tmp_path))


@pytest.mark.parametrize("wrong", [5, None, b"model.pt", ["model.pt"]], ids=repr)
def test_what_is_no_path_is_refused(wrong: object) -> None:
    for load in (Translator.load, Speaker):
        with pytest.raises(ValueError, match=r"the checkpoint is not a path \(.*\): give a text or a pathlib.Path"):
            load(wrong, "data")
        with pytest.raises(ValueError, match="the data folder is not a path"):
            load("model.pt", wrong)


def test_overrides_are_a_dictionary() -> None:
    for wrong in ("{'attn_type': 'relu'}", [1]):
        with pytest.raises(ValueError, match="give a Python dictionary"):
            Translator.load("model.pt", "data", overrides=wrong)


def test_frames_of_other_types_are_converted_or_refused() -> None:
    banks = filter_banks(FLOAT)
    expected = GlobalCMVN().add(banks).statistics()
    for frames in (banks.tolist(), torch.from_numpy(banks)):
        assert np.array_equal(GlobalCMVN().add(frames).statistics(), expected)
    for frames in (banks[0], banks[:, :40]):  # which would be counted as other numbers of frames, or of bins
        with pytest.raises(ValueError, match=r"frames have shape .*, but \(n, 80\) is needed"):
            GlobalCMVN().add(frames)
    assert FilterBankStream().push(FLOAT, np.bool_(True)).shape == banks.shape
    with pytest.raises(ValueError, match="the audio has 8000 samples per second"):
        filter_banks(FLOAT, "8000")


def test_spectrograms_of_other_types() -> None:
    mel = MelSpectrogram(np.int64(22_050), f_max=np.float32(8_000))
    expected = mel(FLOAT)
    for samples in (INT16, FLOAT.tolist(), torch.from_numpy(FLOAT)):
        assert np.array_equal(mel(samples), expected)
    assert np.array_equal(mel.griffin_lim(torch.from_numpy(expected), 2), mel.griffin_lim(expected, 2))
    with pytest.raises(ValueError, match=r"samples have shape \(2, 24000\)"):
        mel(np.stack([FLOAT, FLOAT]))
    with pytest.raises(ValueError, match=r"frames have shape \(80, \d+\), but \(T, 80\) is needed"):
        mel.griffin_lim(expected.T, 2)
    with pytest.raises(ValueError, match="sample_rate must be a number, but is '22050'"):
        MelSpectrogram("22050")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": "0.5"}, "threshold must be a number, but is '0.5'"),
        ({"max_steps": 10.5}, r"max_steps must be an integer, but is 10\.5"),
        ({"max_ratio": None}, "max_ratio must be a number, but is None"),
    ],
)
def test_limits_are_numbers(values: dict, message: str) -> None:
    assert Limits(np.float32(0.5), np.int64(10), np.float64(2)).max_steps == 10
    with pytest.raises(ValueError, match=message):
        Limits(**values)


def test_one_text_is_no_list_of_texts() -> None:
    with pytest.raises(ValueError, match=r"texts must be a list, but is one text \('hello'\): write \[text\]"):
        Speaker.synthesize(None, "hello")


def test_delays_may_be_an_array() -> None:
    for delays in (np.array([100.0, 200.0]), torch.tensor([100.0, 200.0])):
        assert float(latency.average_lagging(delays, 400.0, 2)) == latency.average_lagging([100.0, 200.0], 400.0, 2)


def test_resampled_samples_of_other_types() -> None:
    for samples in (torch.from_numpy(FLOAT), FLOAT.tolist()):
        stream = Samples()
        stream.add(samples, 16_000)
        assert np.array_equal(stream.take(np.bool_(True)), FLOAT)
