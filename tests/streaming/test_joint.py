"""Sessions that decode with CTC prefix scores."""

import copy
import functools
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mla_fairseq.agents import HoldAgent, StreamingAgent, WaitKAgent
from mla_fairseq.edge.runtime.demo import FOLDER
from mla_fairseq.edge.runtime.model import EdgeTranslator
from mla_fairseq.errors import UserError
from mla_fairseq.models.ctc_prefix import PrefixScores, mixed
from mla_fairseq.speech.samples import SHIFT, WINDOW
from mla_fairseq.streaming import (
    AlignAttPolicy,
    HoldPolicy,
    IncrementalSession,
    LocalAgreementPolicy,
    MonotonicPolicy,
    OfflineSession,
    SearchOptions,
    Session,
    Translator,
    WaitKPolicy,
    WholeSourcePolicy,
)
from mla_fairseq.streaming.alignment import AlignmentMeter
from mla_fairseq.streaming.joint import JointScores
from tests.programs import ROOT, run
from tests.streaming.conftest import noise
from tests.streaming.test_agent import LONGEST
from tests.streaming.test_long import Spy, voice
from tests.streaming.test_session import check_causality, emissions, words

CTC = "--criterion label_smoothed_cross_entropy_mla --ctc-weight 1 --ctc-text"
MONOTONIC = "--simul-type infinite_lookback_fixed_pre_decision --cross-attn-type relu"
FULL_CONTEXT = "--encoder-chunk-size 0"
WEIGHT = 0.4


def options(beam: int = 1, **more) -> SearchOptions:
    return SearchOptions(beam, max_len_b=8, ctc_weight=WEIGHT, **more)


def sharpen(checkpoint: Path) -> Path:
    """Make the CTC output of a model with random weights emit a symbol, of which it is sure, at some states."""
    state = torch.load(checkpoint, weights_only=False)
    head = "encoder.ctc.heads.target.linear."
    weight, bias = state["model"][head + "weight"], state["model"][head + "bias"]
    weight.copy_(2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    bias[:4] -= 10  # no blank, pad, eos and unk
    bias[0] += 14
    path = checkpoint.with_name("sharp.pt")
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def speaker(save, data: Path) -> Callable[[str], Translator]:
    """``speaker(flags)``: a model with CTC on the translation."""
    return functools.cache(lambda flags="": Translator.load(sharpen(save(f"{flags} {CTC} target")), data))


SESSIONS = {
    "wait-k": lambda speaker, beam: IncrementalSession(speaker(), WaitKPolicy(2, 3), options(beam)),
    "monotonic": lambda speaker, beam: IncrementalSession(speaker(MONOTONIC), MonotonicPolicy(), options(beam)),
    "hold": lambda speaker, beam: OfflineSession(speaker(FULL_CONTEXT), HoldPolicy(2), options(beam)),
    "align-att": lambda speaker, beam: OfflineSession(speaker(), AlignAttPolicy(2), options(beam)),
}
every_session = pytest.mark.parametrize("name", SESSIONS)
every_beam = pytest.mark.parametrize("beam", [1, 3])


@every_beam
@pytest.mark.parametrize("name", ["wait-k", "monotonic"])
def test_words_do_not_depend_on_segments(speaker, name: str, beam: int) -> None:
    samples = noise(2.3, 3)
    expected = words(emissions(SESSIONS[name](speaker, beam), samples, []))
    for cuts in [11_520], [5_000, 0, 17_000]:
        assert words(emissions(SESSIONS[name](speaker, beam), samples, cuts)) == expected
    assert len(expected) > 1


def test_the_end_of_the_source_counts_only_for_tokens_that_wait_for_it(save, data: Path) -> None:
    """A token that may read all states has the same score whether it is known that no more will follow."""
    model = Translator.load(sharpen(save(f"{CTC} target", "convtransformer_simul_mla")), data)
    head = model.model.encoder.ctc.heads["target"].linear
    head.weight.data.mul_(0.1)  # unsure: the states may well emit no more than the hypothesis
    head.bias.data[0] += 4
    frames = model.frames_before(12)  # k = 2, 3 states per step: the third token reads 12 states
    samples, found = noise(3.0, 3)[: SHIFT * (frames - 1) + WINDOW], []
    for cuts in [], [len(samples)]:
        session = IncrementalSession(model, WaitKPolicy(2, 3), options())
        emissions(session, samples, cuts)
        assert session.source.available == 12
        assert session.hypotheses.decoded > 4
        found += session.search.finished
    (score, tokens), other = found
    assert other == (pytest.approx(score, abs=1e-4), tokens)


@every_beam
def test_no_word_depends_on_audio_that_has_not_arrived(speaker, beam: int) -> None:
    check_causality(speaker(), WaitKPolicy(2, 3), options(beam))


@every_session
def test_the_weight_counts(speaker, name: str) -> None:
    """Without it, a model has the words of the same model without CTC outputs."""
    session = SESSIONS[name](speaker, 1)
    bare = copy.copy(session.translator)
    bare.model = copy.deepcopy(bare.model)
    bare.model.encoder.ctc = None
    found = [words(emissions(session, noise(3.0, 3), [16_000, 16_000]))]
    for translator in session.translator, bare:
        alone = type(session)(translator, session.policy, SearchOptions(max_len_b=8))
        found.append(words(emissions(alone, noise(3.0, 3), [16_000, 16_000])))
    assert found[1] == found[2] != found[0]


@every_session
@every_beam
def test_a_snapshot_is_exact(speaker, name: str, beam: int) -> None:
    session, samples = SESSIONS[name](speaker, beam), noise(3.0, 3)
    begun = words(session.push(samples[:12_000]))
    snapshot, size = session.snapshot(), session.nbytes
    if isinstance(session, IncrementalSession):
        held = session.hypotheses.joint
        assert held.probs.data_ptr() == snapshot.hypotheses.joint.probs.data_ptr()
        bare = session.snapshot()
        bare.hypotheses.joint = None
        assert size - bare.nbytes >= 8 * session.source.taken * len(session.translator.dictionary) > 0
    expected = words(emissions(session, samples[12_000:], [9_000]))
    if isinstance(session, IncrementalSession):
        assert session.nbytes == session.source.nbytes  # nothing of a sentence that has ended
    session.restore(snapshot)
    assert session.nbytes == size
    assert words(emissions(session, noise(2.0, 9), [9_000])) != expected
    session.restore(snapshot)
    assert words(emissions(session, samples[12_000:], [9_000])) == expected
    assert begun + expected


@torch.no_grad()
def test_scores_do_not_depend_on_when_states_arrive(speaker) -> None:
    """States that arrive between tokens have the scores that they would have had before the first one."""
    model = speaker().model
    torch.manual_seed(0)
    states, symbols = model.encoder(torch.randn(1, 400, 80), torch.tensor([400]))["encoder_out"][0], 8
    attention = torch.randn(6, 3, len(model.decoder.dictionary)).log_softmax(-1)

    def run_through(cuts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        scores = JointScores(model.encoder.ctc, WEIGHT, 2, 0)
        tokens, parts = torch.tensor([2]), iter(states.tensor_split(cuts))
        for place, rows in enumerate(attention):
            scores.hear(next(parts, states[:0]))
            found = scores.step(tokens, rows[: len(tokens)], ended=False)
            tokens = torch.arange(4, 7) + place % 2 * symbols
            scores.keep(torch.zeros(3, dtype=torch.long) if place == 0 else torch.tensor([1, 0, 2]))
        return found, scores.fork().step(tokens, attention[0], ended=True)

    expected = run_through([])
    for cuts in [10], [3, 30, 31, 31], [1, 2, 3, 4, 99]:
        for found, whole in zip(run_through(cuts), expected, strict=True):
            torch.testing.assert_close(found, whole)
    log_probs, lengths = model.encoder.ctc({"encoder_out": [states], "encoder_padding_mask": []}, "target")
    prefixes = PrefixScores(log_probs.transpose(0, 1).double().exp(), lengths, 2)
    for place in range(6):  # the hypotheses of places 0, 1 and 2 after each exchange
        order = [[4, 5, 6], [12, 13, 14]][place % 2]
        parents = torch.zeros(3, dtype=torch.long) if place == 0 else torch.tensor([1, 0, 2])
        prefixes.advance(parents, torch.tensor(order))
    torch.testing.assert_close(expected[1], mixed(attention[0], prefixes.scores(), WEIGHT))


def generated(data: Path, checkpoint: Path, *flags: object, subset: str = "tst-COMMON_st") -> dict[int, str]:
    """Return the translations of ``fairseq-generate`` by row, one recording in a batch."""
    task = [data, "--user-dir", "mla_fairseq", "--task", "speech_to_text_mla", "--config-yaml", "config_st.yaml"]
    decode = ["--gen-subset", subset, "--path", checkpoint, *LONGEST, "--cpu", "--num-workers", 0, "--batch-size", 1]
    done = run("fairseq-generate", task, decode, "--ctc-decoding-weight", WEIGHT, *flags, cwd=ROOT)
    assert done.code == 0, done.err[-3000:]
    return {int(line[2:].split("\t")[0]): line.split("\t")[2] for line in done.lines("D-")}


def check_whole(translator: Translator, folder: Path, texts: dict[int, str], search: SearchOptions) -> None:
    """Check that sessions of whole recordings have these texts."""
    kinds: list[tuple[type[Session], object]] = [(OfflineSession, HoldPolicy(1))]
    if translator.streams:
        kinds.append((IncrementalSession, WholeSourcePolicy()))
    for kind, policy in kinds:
        for index, wav in enumerate(sorted((folder / "data/tst-COMMON/wav").glob("*.wav"))):
            samples, _ = soundfile.read(wav, dtype="int16")
            found = kind(translator, policy, search).push(samples, final=True)
            assert " ".join(emission.text for emission in found) == texts[index]
    assert len(set(texts.values())) > 2


def test_whole_recordings_have_the_words_of_fairseq_generate(save, data: Path) -> None:
    checkpoint = sharpen(save(f"{FULL_CONTEXT} {CTC} target"))
    search = SearchOptions(3, 1.5, max_len_a=0.05, max_len_b=5, ctc_weight=WEIGHT)
    texts = generated(data, checkpoint, "--beam", 3, "--lenpen", 1.5)
    check_whole(Translator.load(checkpoint, data), data, texts, search)


def test_whole_recordings_have_the_words_of_fairseq_generate_after_a_tag(multilingual, joint: Path) -> None:
    checkpoint = sharpen(multilingual(f"{CTC} both"))
    search = SearchOptions(2, max_len_a=0.05, max_len_b=5, tgt_lang="fr", ctc_weight=WEIGHT)
    texts = generated(joint, checkpoint, "--beam", 2, "--prefix-size", 1, subset="tst-COMMON_fr_st")
    check_whole(Translator.load(checkpoint, joint), joint.parent / "en-fr", texts, search)


def agent_of(kind: type, checkpoint: Path, data: Path, *flags: object) -> StreamingAgent:
    parser = ArgumentParser()
    kind.add_args(parser)
    return kind(parser.parse_args(["--model-path", str(checkpoint), "--data-bin", str(data), *map(str, flags)]))


def test_agents_have_the_flag(save, data: Path) -> None:
    checkpoint = sharpen(save(f"{CTC} target"))
    for kind, more in (WaitKAgent, ()), (HoldAgent, ("--long-form",)):
        agent = agent_of(kind, checkpoint, data, "--ctc-decoding-weight", WEIGHT, *more)
        assert agent.build_session().options.ctc_weight == WEIGHT
        assert agent_of(kind, checkpoint, data).build_session().options == SearchOptions()
    with pytest.raises(
        UserError, match=r"ctc_weight \(--ctc-decoding-weight\) must be at least 0 and below 1, but is 1\.0"
    ):
        agent_of(WaitKAgent, checkpoint, data, "--ctc-decoding-weight", 1)
    with pytest.raises(UserError, match="--ctc-decoding-weight needs a model with CTC on the translation"):
        agent_of(WaitKAgent, save(), data, "--ctc-decoding-weight", WEIGHT)


def test_stretches_of_long_recordings_have_the_words_of_sessions(speaker) -> None:
    samples = np.concatenate((voice(1.5, 1), np.zeros(16_000, np.int16), voice(2.1, 2)))
    session = SESSIONS["wait-k"](speaker, 1)
    found = Spy(session)
    texts = words(found.push(samples[:20_000]) + found.push(samples[20_000:], final=True))
    assert len(found.slices) == 2
    expected = [words(session.snapshot().push(samples[slice(*place)], final=True)) for place in found.slices]
    assert texts == [*expected[0], *expected[1]] and all(expected)


def test_models_and_weights_that_do_not_suit_are_reported(translator) -> None:
    for model in translator(), translator(f"{CTC} source"):
        for kind, policy in (IncrementalSession, WaitKPolicy(2)), (OfflineSession, LocalAgreementPolicy()):
            with pytest.raises(ValueError, match="--ctc-decoding-weight needs a model with CTC on the translation"):
                kind(model, policy, options())
    for kind, policy in (IncrementalSession, WaitKPolicy(2)), (OfflineSession, HoldPolicy(2)):
        with pytest.raises(ValueError, match=r"an exported model has no CTC outputs: leave out ctc_weight"):
            kind(EdgeTranslator.load(FOLDER), policy, options())
    for weight in 1, -0.1, float("nan"), "0.3", None:
        with pytest.raises(
            ValueError, match=r"^ctc_weight \(--ctc-decoding-weight\) must be at least 0 and below 1, but is"
        ):
            SearchOptions(ctc_weight=weight)


def test_alignment_is_that_of_attention_alone(speaker) -> None:
    with pytest.raises(ValueError, match=r"alignment is that of attention alone: leave out ctc_weight \(0.4\)"):
        AlignmentMeter(speaker(FULL_CONTEXT), options=options())
