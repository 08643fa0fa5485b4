"""``mla-heads`` measures the heads of a model as sessions use them."""

from pathlib import Path

import numpy as np
import pytest

from mla_fairseq.streaming import AlignAttPolicy, OfflinePolicy, OfflineSession, SearchOptions, Translator
from mla_fairseq.streaming.alignment import AlignmentMeter, separation
from tests.programs import run
from tests.streaming.conftest import noise

SEGMENT = 4480
MODELS = {"whole": "--encoder-chunk-size 0", "chunked-relu": "--cross-attn-type relu"}
every_model = pytest.mark.parametrize("flags", MODELS.values(), ids=MODELS)


@pytest.fixture(scope="module")
def wavs(data: Path) -> list[Path]:
    return sorted((data / "data/tst-COMMON/wav").glob("*.wav"))


def step_by_step(model: Translator, samples: np.ndarray, layer: int, heads: list[int]) -> tuple[list, list]:
    """Return the distances of tokens that stay and that change, from one decoding step of a session at a time."""
    whole = OfflineSession(model, OfflinePolicy())
    whole.push(samples, final=True)
    session, stay, change = OfflineSession(model, AlignAttPolicy(1)), [], []
    for start in range(0, len(samples) - SEGMENT, SEGMENT):
        session.source.push(samples[start : start + SEGMENT])
        states = session.source.available
        if not states:
            continue
        decoding, last = model.redecode(session.source.states, [], layer, heads), model.eos
        for token in whole.committed:
            scores, weights = decoding.attend(last)
            scores[model.pad] = -np.inf
            best, last = int(scores.argmax()), token
            near = [f for f in range(states) if AlignAttPolicy(f).stops(0, weights, states)]
            distance = min(near, default=states) - 1  # the smallest f that stops is one above the distance
            if best == token:
                stay.append(distance)
            elif best != model.eos:
                change.append(distance)
            if best != token:
                break
    return stay, change


@every_model
def test_distances_are_those_of_sessions(translator, flags: str) -> None:
    model, counts = translator(flags), [0, 0]
    samples = [noise(2.3, seed) for seed in range(3)]
    meter = AlignmentMeter(model)
    for recording in samples:
        meter.add(recording)
    stay, change = np.concatenate(meter.stay), np.concatenate(meter.change)
    assert [choice for choice in meter.choices if choice[0] == 0] == [(0, [0, 1]), (0, [0]), (0, [1])]
    for i, (layer, heads) in enumerate(meter.choices):
        found = [step_by_step(model, recording, layer, heads) for recording in samples]
        for j, measured in enumerate((stay, change)):
            expected = [distance for each in found for distance in each[j]]
            assert np.maximum(expected, 0).tolist() == measured[:, i].tolist()
            counts[j] += len(expected)
    assert min(counts) > 0, "tokens that all stay, or all change, prove nothing"


def test_separation_is_the_share_of_pairs() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        stay, change = rng.integers(0, 9, rng.integers(1, 30)), rng.integers(0, 5, rng.integers(1, 30))
        pairs = [(a > b) + (a == b) / 2 for a in stay for b in change]
        assert separation(stay, change) == pytest.approx(np.mean(pairs))
    assert separation(np.array([5, 7]), np.array([1, 2])) == 1.0


def test_the_best_choice_comes_first(translator) -> None:
    meter = AlignmentMeter(translator())
    count = len(meter.choices)
    meter.stay, meter.change = [np.full((3, count), 4)], [np.full((2, count), 4)]
    meter.change[0][:, 2] = 1  # only this choice tells them apart
    best, *others = meter.ranking()
    assert (best.layer, best.heads, best.separation) == (*meter.choices[2], 1.0)
    assert {alignment.separation for alignment in others} == {0.5}


def test_the_command_proposes_flags(save, data: Path, wavs: list[Path]) -> None:
    arguments = [save(), [*wavs[:1], *wavs[2:4]], "--data", data, "--segment-size", 120]
    done = run("mla-heads", *arguments)
    assert done.code == 0, done.err[-3000:]
    head, *rows, proposal = done.out.splitlines()
    assert head.split() == ["layer", "heads", "separation"]
    assert len(rows) == 6
    layer, *heads, _ = rows[0].split()
    assert proposal == f"use --attn-layer {layer} --attn-heads {' '.join(heads)}"
    values = [float(row.split()[-1]) for row in rows]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    ("flags", "arguments", "message"),
    [
        ("", ["--segment-size", 60_000], "0 tokens stay and 0 change as audio arrives: give more recordings"),
        ("--simul-type infinite_lookback", [], "this model has monotonic attention"),
        ("", ["--tgt-lang", "de"], "tgt_lang (--tgt-lang)"),
    ],
)
def test_what_cannot_be_measured_is_one_line(save, data: Path, wavs: list[Path], flags, arguments, message) -> None:
    done = run("mla-heads", save(flags), wavs[0], "--data", data, *arguments)
    assert done.code == 1
    assert message in done.last_line


def test_a_language_is_forced(joint: Path, multilingual) -> None:
    model = Translator.load(multilingual("--encoder-chunk-size 0"), joint)
    meter = AlignmentMeter(model, options=SearchOptions(tgt_lang="de"))
    meter.add(noise(2.3, 3))
    states = sum(map(len, meter.stay + meter.change))
    assert states > 0
