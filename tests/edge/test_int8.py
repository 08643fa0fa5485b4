"""8-bit graphs of a trained model emit its words: those of random weights would agree, or differ, by chance."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mla_fairseq.checkpoints import load_checkpoint
from mla_fairseq.edge.drive import Call, decode, encoded, graph_call, read
from mla_fairseq.edge.export import export
from mla_fairseq.edge.quantise import quantise
from tests.edge.conftest import ARCHS, SIMUL, Steps
from tests.models.conftest import SIZES, TRAINING, Build
from tests.programs import run

K, RATIO, LONGEST = 3, 2, 14
LARGER = "--encoder-embed-dim 64 --decoder-embed-dim 64 --encoder-ffn-embed-dim 128 --decoder-ffn-embed-dim 128"
FLAGS = f"{SIMUL} {LARGER} --conv-channels 64 --dropout 0 --waitk-lagging {K} --share-decoder-input-output-embed"


def translate(steps: Steps, frames: Tensor, calls: dict[str, Call]) -> list[int]:
    """Return the tokens of a greedy wait-k decoding of frames (T, F)."""
    states, position, tokens = encoded(steps.encoder, frames, calls["encoder"]), 0, [2]
    memories, own = steps.reader.fresh, steps.decoder.fresh
    while len(tokens) < LONGEST and (tokens[-1] != 2 or len(tokens) == 1):
        upto = min(len(states), RATIO * (K + len(tokens) - 1))
        memories, position = read(steps.reader, states[position:upto], memories, calls["reader"]), upto
        scores, own = decode(steps.decoder, torch.tensor(tokens[-1:]), memories, own, calls["decoder"])
        tokens.append(int(scores.argmax()))
    return tokens[1:]


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["softmax", "cosformer"])
def test_a_trained_model_emits_the_same_words(build: Build, corpus: Path, tmp_path: Path, mechanism: str) -> None:
    flags = f"{FLAGS} --attn-type {mechanism}"
    command = [corpus, "--task", "speech_to_text_mla", "--arch", ARCHS[0], *SIZES, *TRAINING, *flags.split()]
    done = run("fairseq-train", command, "--lr", 0.003, "--max-update", 400, "--save-dir", tmp_path)
    assert done.code == 0, done.err
    built = build(ARCHS[0], flags)
    built.model.load_state_dict(load_checkpoint(tmp_path / "checkpoint_last.pt")["model"])
    steps = Steps(built.model.eval())
    parts, calls, exact = {"encoder": steps.encoder, "reader": steps.reader, "decoder": steps.decoder}, {}, {}
    for name, step in parts.items():
        export(step, tmp_path / f"{name}.onnx", {})
        quantise(tmp_path / f"{name}.onnx", tmp_path / f"{name}.int8.onnx")
        calls[name], exact[name] = graph_call(tmp_path / f"{name}.int8.onnx"), step.run
    built.task.load_dataset("train")
    dataset = built.task.dataset("train")
    right = same = total = 0
    with torch.no_grad():
        for item in (dataset[i] for i in range(len(dataset))):
            expected = translate(steps, item.source, exact)
            found, text = translate(steps, item.source, calls), item.target.tolist()
            right += sum(a == b for a, b in zip(expected, text, strict=False))
            same += sum(a == b for a, b in zip(found, expected, strict=False))
            total += len(text)
    print(f"{mechanism}: {right} of {total} tokens learned, {same} the same with 8-bit weights")
    assert right > 0.9 * total
    assert same > 0.97 * total
