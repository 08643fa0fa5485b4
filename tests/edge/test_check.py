"""An export is compared with its model: a graph that computes something else is not accepted."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from mla_fairseq.edge.build import SpeechSteps
from mla_fairseq.edge.check import check_speech, compare
from mla_fairseq.edge.drive import Call
from mla_fairseq.streaming.search import SearchOptions
from mla_fairseq.streaming.translator import Translator

FLAGS = {
    "softmax": "--encoder-left-chunks 2",
    "linear": "--attn-type cosformer",
    "boundary": "--boundary-weight 1 --context-ratio 0.8 --criterion label_smoothed_cross_entropy_mla",
    "monotonic": "--simul-type infinite_lookback",
}
PARTS = {
    "frontend": ("frontend", "frames"),
    "encoder": ("encoder", "states"),
    "boundary output": ("encoder", "boundary"),
    "decoder": ("decoder", "scores"),
}


def steps_of(translator: Callable[..., Translator], name: str, beam: int = 1) -> tuple[SpeechSteps, dict[str, Call]]:
    speech = SpeechSteps(translator(FLAGS[name]), 4.0, SearchOptions(beam=beam))
    return speech, {part: step.run for part, step in speech.steps.items()}


@pytest.mark.parametrize("name", FLAGS)
def test_the_steps_pass(translator: Callable[..., Translator], name: str) -> None:
    speech, calls = steps_of(translator, name, beam=2)
    errors = check_speech(speech, calls, int8=False)
    assert set(errors) == set(PARTS) - ({"boundary output"} if name != "boundary" else set())
    assert max(errors.values()) < 1e-3


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("int8", "factor"), [(False, 1.01), (True, 1.3), (True, float("nan"))])
def test_a_graph_that_differs_is_reported(
    translator: Callable[..., Translator], part: str, int8: bool, factor: float
) -> None:
    speech, calls = steps_of(translator, "boundary")
    graph, result = PARTS[part]

    def broken(data: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        results, new = speech.steps[graph].run(data, state)
        return results | {result: results[result] * torch.tensor(factor)}, new

    with pytest.raises(ValueError, match=f"the graph of the {part} differs from the model"):
        check_speech(speech, calls | {graph: broken}, int8)


@pytest.mark.parametrize("rounded", [set(), {"encoder"}])
def test_a_graph_that_returns_too_few_states_is_reported(rounded: set[str]) -> None:
    states = torch.ones(5, 4)
    assert compare({"encoder": (states, states)}, rounded) == {"encoder": 0}
    for found in (states[:4], torch.ones(5, 1)):
        with pytest.raises(ValueError, match="the graph of the encoder differs from the model"):
            compare({"encoder": (found, states)}, rounded)
