"""A short training on some minutes of the demo's speech learns to translate what was spoken."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils

pytest.importorskip("espeakng_loader")

from examples.demo_corpus.corpus import make_corpus
from mla_fairseq import plugin  # noqa: F401 -- registers the architectures
from mla_fairseq.data.prepare import Options, prepare
from mla_fairseq.data.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[1]
DEV = 60
TRAINING = (
    "--task speech_to_text_mla --config-yaml config_st.yaml --train-subset train_st --valid-subset dev_st "
    "--user-dir mla_fairseq --arch s2t_transformer_mla_tiny --dropout 0 --attention-dropout 0 --activation-dropout 0 "
    "--share-decoder-input-output-embed --criterion label_smoothed_cross_entropy --label-smoothing 0.1 "
    "--optimizer adam --adam-betas (0.9,0.98) --lr 0.003 --lr-scheduler polynomial_decay --warmup-updates 60 "
    "--total-num-update 480 --max-update 480 --max-tokens 1200 --clip-norm 10 --required-batch-size-multiple 1 "
    "--disable-validation --no-epoch-checkpoints --num-workers 0 --seed 1 --cpu --no-progress-bar"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a corpus of one voice and one sentence pattern; no sentence of the dev set is in the training set."""
    folder = tmp_path_factory.mktemp("demo")
    make_corpus(folder, 1000, DEV, 1, patterns="simple", voices=1, workers=1)
    pair = folder / "en-de"
    prepare(pair, None, Options(vocabulary=Vocabulary("unigram", 100), cmvn="global", specaugment="none"))
    return pair


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["softmax", "cosformer"])
def test_a_translation_depends_on_the_speech(data: Path, tmp_path: Path, mechanism: str) -> None:
    """Texts of one pattern can be guessed in part; the speech of other sentences measures how far."""
    command = [str(Path(sys.executable).with_name("fairseq-train")), str(data), *TRAINING.split()]
    flags = ["--attn-type", mechanism, "--save-dir", str(tmp_path)]
    done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    spoken, guessed = losses(tmp_path / "checkpoint_last.pt", data)
    print(f"{mechanism}: {spoken:.2f} bits per token, {guessed:.2f} after the speech of another sentence")
    assert spoken < 1.0
    assert guessed - spoken > 0.2


@torch.no_grad()
def losses(checkpoint: Path, data: Path) -> tuple[float, float]:
    """Return bits per target token of the dev set, given the speech of the sentence and that of another one."""
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)], {"data": str(data)})
    task.load_dataset("dev_st")
    dataset = task.dataset("dev_st")
    batch = dataset.collater([dataset[i] for i in range(DEV)])
    inputs, target = batch["net_input"], batch["target"]
    real = target.ne(task.target_dictionary.pad())

    def bits(order: torch.Tensor) -> float:
        source, lengths = inputs["src_tokens"][order], inputs["src_lengths"][order]
        longest_first = lengths.argsort(descending=True)
        output = model(source[longest_first], lengths[longest_first], inputs["prev_output_tokens"][longest_first])
        likelihoods = model.get_normalized_probs(output, log_probs=True)
        found = likelihoods.gather(-1, target[longest_first].unsqueeze(-1)).squeeze(-1)[real[longest_first]]
        return -found.mean().item() / torch.log(torch.tensor(2.0)).item()

    model.eval()
    return bits(torch.arange(DEV)), bits(torch.arange(DEV).roll(7))
