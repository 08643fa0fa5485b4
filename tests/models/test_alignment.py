"""``--print-alignment``: the weights with which each token of a hypothesis was decoded, without padding."""

from argparse import Namespace

import pytest
import torch

from mla_fairseq.tasks.ngrams import RepeatedNGrams
from tests.models.conftest import Build, Built

MODELS = {
    "softmax": ("s2t_transformer_mla", ""),
    "cosformer": ("s2t_transformer_mla", "--attn-type cosformer --target-length fixed --target-length-fixed 5"),
    "wait-k": ("s2t_transformer_simul_mla", "--attn-type relu --waitk-lagging 1 --fixed-pre-decision-ratio 2"),
    "monotonic": ("s2t_transformer_simul_mla", "--simul-type infinite_lookback --encoder-chunk-size 2"),
}


def translate(built: Built, batch: dict, lagging: int | None, kind: str | None) -> list[list[dict]]:
    """Return the hypotheses of a batch, each of 4 tokens."""
    task, beam = built.task, 1 if lagging else 2
    task.args.simul_waitk_lagging, task.args.simul_segment_size, task.args.simul_log = lagging, 280, None
    args = Namespace(beam=beam, max_len_b=4, min_len=4, print_alignment=kind)
    generator = task.build_generator([built.model.eval()], args)
    return task.inference_step(generator, [built.model], batch)


def stepwise(built: Built, batch: dict, i: int, tokens: torch.Tensor) -> list[torch.Tensor]:
    """Return the weights (S,) of each token of a hypothesis, decoded alone and step by step."""
    frames = batch["net_input"]["src_lengths"][i : i + 1]
    source = {"src_tokens": batch["net_input"]["src_tokens"][i : i + 1, : frames[0]], "src_lengths": frames}
    lagging = {"waitk_lagging": batch["net_input"]["waitk_lagging"]} if "waitk_lagging" in batch["net_input"] else {}
    encoded, state, previous = built.model.encoder(**source, **lagging), {}, tokens.roll(1).unsqueeze(0)
    steps = range(1, len(tokens) + 1)
    calls = [built.model.decoder(previous[:, :t], encoded, state, alignment_layer=1) for t in steps]
    return [extra["attn"][0][0, 0] for _, extra in calls]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("soft", [True, False], ids=["soft", "hard"])
@torch.no_grad()
def test_alignments_are_the_weights_of_decoding(build: Build, name: str, soft: bool) -> None:
    arch, flags = MODELS[name]
    built = build(arch, f"--task speech_to_text_mla {flags}")
    batch = built.batch(split="dev")
    found = translate(built, batch, 1 if name == "wait-k" else None, "soft" if soft else "hard")
    for i, hypotheses in enumerate(found):
        for hypothesis in hypotheses:
            if name == "monotonic":  # with a state its heads keep no weights
                states = -(-int(batch["net_input"]["src_lengths"][i]) // 4)
                rows = hypothesis["alignment"]
                assert all(len(row) == states for row in rows) if soft else all(row[0] < states for row in rows)
                continue
            expected = stepwise(built, batch, i, hypothesis["tokens"])
            if soft:
                given = [[float(weight) for weight in row] for row in hypothesis["alignment"]]
                torch.testing.assert_close(torch.tensor(given), torch.stack(expected), atol=2e-6, rtol=1e-4)
            else:
                assert [token for _, token in hypothesis["alignment"]] == [0, 1, 2, 3]
                chosen = [
                    weights[state] for weights, (state, _) in zip(expected, hypothesis["alignment"], strict=False)
                ]  # no end
                assert all(weight >= weights.max() - 1e-6 for weight, weights in zip(chosen, expected, strict=False))


def test_fairseqs_models_have_no_weights(build: Build) -> None:
    built = build("s2t_transformer", "--task speech_to_text_mla")
    with pytest.raises(
        SystemExit, match=r"--print-alignment is not supported for this model \(S2TTransformerModel\): load"
    ):
        translate(built, built.batch(split="dev"), None, "hard")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_is_repeated(size: int) -> None:
    tokens = torch.randint(4, 7, (50, 12))
    tokens[:, 0] = 2
    for step in range(10):
        scores = RepeatedNGrams(size)(tokens, torch.zeros(50, 8), 10, 5, step)
        for row, written in zip(scores, tokens[:, 1 : step + 1].tolist(), strict=True):
            grams = {tuple(written[i : i + size]) for i in range(len(written) - size + 1)}
            repeating = {token for token in range(8) if (*written[len(written) - size + 1 :], token) in grams}
            blocked = {token for token in range(8) if row[token] == -torch.inf}
            assert blocked == (repeating if len(written) >= size - 1 else set())
