"""Attention works without fairseq; with fairseq, a user-dir adds a mechanism to the flags."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attention.cases import EXAMPLE, MECHANISMS, ROOT

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"fairseq", "fairseq_cli", "hydra", "omegaconf", "kaldi_native_fbank"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.modules["fairseq"] = None
sys.meta_path.insert(0, Blocker())
"""
WITHOUT_FAIRSEQ = (
    BLOCKED
    + """
import runpy, torch
from mla_fairseq.attention import Causal, Layout, MultiheadAttention, available_attention
runpy.run_path(sys.argv[1])
x, nine = torch.randn(9, 2, 8), torch.tensor([9])
for name in available_attention():
    attention, state = MultiheadAttention(8, 2, name), {}
    layouts = [Layout.at(Causal(), t, query_length=nine, key_length=nine) for t in range(9)]
    steps = [attention(t[None], t[None], layout, state) for t, layout in zip(x, layouts)]
    torch.testing.assert_close(torch.cat(steps), attention(x, x, Layout.whole(Causal(), 9)))
print(*available_attention())
"""
)
WITH_USER_DIR = """
import sys
from types import SimpleNamespace
import torch
from fairseq import options
from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_REGISTRY

args = options.parse_args_and_arch(options.get_training_parser(), sys.argv[1:])
args.input_feat_per_channel, args.input_channels = 80, 1  # the task reads them from the data's configuration
words = Dictionary()
words.add_symbol("hello")
task = SimpleNamespace(target_dictionary=words, args=args, data_cfg=SimpleNamespace(prepend_tgt_lang_tag=False))
model = ARCH_MODEL_REGISTRY[args.arch].build_model(args, task)
frames, lengths, tokens = torch.randn(2, 40, 80), torch.tensor([40, 33]), torch.tensor([[2, 4, 4], [2, 4, 1]])
output, _ = model(frames, lengths, tokens)
assert output.shape == (2, 3, len(words)) and output.isfinite().all()
sites = [layer.self_attn for layer in model.encoder.transformer_layers]
sites += [site for layer in model.decoder.layers for site in (layer.self_attn, layer.encoder_attn)]
print({type(site.mechanism).__name__ for site in sites})
"""


def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess:
    """Run the program in a new Python process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_without_fairseq() -> None:
    done = run(WITHOUT_FAIRSEQ, EXAMPLE)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(MECHANISMS), "each of them ran"


def test_importing_attention_imports_no_fairseq() -> None:
    """Where fairseq is installed."""
    pytest.importorskip("fairseq")
    done = run("import sys, mla_fairseq.attention; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    loaded = {name for name in done.stdout.split() if name.startswith(("fairseq", "mla_fairseq", "hydra"))}
    assert "mla_fairseq.attention" in loaded
    assert not {name for name in loaded if not name.startswith("mla_fairseq.attention")} - {"mla_fairseq"}


def test_the_blocker_blocks() -> None:
    done = run(BLOCKED + "import fairseq.data")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_a_user_dir_adds_a_mechanism(tmp_path: Path) -> None:
    pytest.importorskip("fairseq")
    flags = ["--user-dir", EXAMPLE.parent, "--task", "speech_to_text", "--arch", "s2t_transformer_mla_tiny"]
    done = run(WITH_USER_DIR, tmp_path, *flags, "--attn-type", "quadratic_distance")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "{'QuadraticDistance'}"
