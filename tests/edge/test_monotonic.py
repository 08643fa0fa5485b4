"""Steps of monotonic heads decide, read and wait as the model's own decoding does."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mla_fairseq.attention import fork
from mla_fairseq.attention.base import Tensors
from mla_fairseq.edge.drive import Call, checked, read
from tests.edge.conftest import Steps
from tests.edge.test_export import graphs
from tests.edge.test_steps import Make, speech

BIAS = "--energy-bias --energy-bias-init 0.02"  # so that the heads of random weights stop at some states
MODELS = {
    "hard": "--simul-type hard_aligned",
    "infinite": "--simul-type infinite_lookback",
    "infinite-linear": "--simul-type infinite_lookback --attn-type relu",
    "chunkwise": "--simul-type chunkwise --mocha-chunk-size 3",
    "chunkwise-cosformer": "--simul-type chunkwise_fixed_pre_decision --mocha-chunk-size 3 --attn-type cosformer",
    "fixed-cosformer": "--simul-type infinite_lookback_fixed_pre_decision --attn-type cosformer",
    "fixed-last": "--simul-type infinite_lookback_fixed_pre_decision --fixed-pre-decision-type last "
    "--fixed-pre-decision-ratio 3 --cross-attn-type leap",
    "average": "--simul-type hard_aligned_fixed_pre_decision --fixed-pre-decision-ratio 3 --no-mass-preservation",
    "threshold": "--simul-type chunkwise_fixed_pre_decision --fixed-pre-decision-ratio 3 "
    "--fixed-pre-decision-pad-threshold 0.5",
}


class Written:
    """A decoding of steps or graphs: it reads states, and tries tokens."""

    def __init__(self, steps: Steps, reader: Call, decoder: Call) -> None:
        self.steps, self.reader, self.decoder = steps, reader, decoder
        self.memories, self.own = steps.reader.fresh, steps.decoder.fresh

    def feed(self, states: Tensor) -> None:
        self.memories = read(self.steps.reader, states[:, 0], self.memories, self.reader)

    def attempt(self, tokens: Tensor, ended: bool) -> Tensors:
        data = {name: self.memories[name] for name in self.steps.decoder.data if name in self.memories}
        data |= {"tokens": tokens, "ended": torch.tensor([int(ended)])}
        results, state = self.decoder(data, self.own)
        if ended or not results["waiting"].any():
            self.own = state
        return results


def check(steps: Steps, written: Written, frames: int, tolerance: float, dtype: torch.dtype) -> tuple[int, int]:
    """Compare every attempt on a speech; return the numbers of tokens and of attempts that waited."""
    model, beam = steps.model, len(steps.decoder.data["tokens"])
    states = model.encoder.stream(speech(frames, dtype).unsqueeze(0), {}, final=True)
    pushes = [*states.split(4)]
    state, decoded, waited, fed = {}, 0, 0, 0
    for i, new in enumerate(pushes):
        final = i == len(pushes) - 1
        model.decoder.feed(new.expand(-1, beam, -1), state, final)
        written.feed(new)
        fed += len(new)
        while decoded < 12:
            tokens = torch.arange(beam) + 4 + decoded * 7 % 20
            before = fork(state)
            scores, seen, waits = model.decoder.attempt(tokens.unsqueeze(1), state)
            found = written.attempt(tokens, final)
            assert found["waiting"].tolist() == waits.long().tolist()
            if waits.any() and not final:
                state, waited = before, waited + 1
                break
            assert found["seen"].tolist() == seen.tolist()
            torch.testing.assert_close(found["scores"], scores, rtol=0, atol=tolerance)
            decoded += 1
    return decoded, waited


@pytest.mark.parametrize("flags", MODELS.values(), ids=MODELS)
@torch.no_grad()
def test_steps_equal_the_model(steps: Make, flags: str) -> None:
    tokens, waits = 0, 0
    for beam, frames in ((1, 3), (1, 70), (3, 121)):
        found = steps(f"{BIAS} {flags}", beam=beam)
        written = Written(found, checked(found.reader), checked(found.decoder))
        counted = check(found, written, frames, 1e-9, torch.double)
        tokens, waits = tokens + counted[0], waits + counted[1]
    assert tokens == 36 and waits > 0  # else nothing was decided


@pytest.mark.parametrize("name", ["chunkwise-cosformer", "fixed-last", "threshold"])
@torch.no_grad()
def test_graphs_equal_the_model(steps: Make, tmp_path: Path, name: str) -> None:
    found = steps(f"{BIAS} {MODELS[name]}", double=False)
    calls = graphs(found, tmp_path)
    assert check(found, Written(found, calls["reader"], calls["decoder"]), 70, 1e-4, torch.float)[0] == 12
