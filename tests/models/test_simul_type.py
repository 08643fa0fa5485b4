"""Simultaneous models work where fairseq's example, which has its own ``--simul-type``, is installed."""

import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import fairseq
import pytest
from fairseq import options
from fairseq.registry import REGISTRIES

from mla_fairseq.models.convtransformer_simul_mla import share_simul_type
from mla_fairseq.models.simul import SIMUL_TYPES
from tests.models.conftest import TRAINING

ROOT = Path(__file__).resolve().parents[2]
ARCHS = ("s2t_transformer_simul_mla_tiny", "convtransformer_simul_mla_espnet")


class OfExample:
    """Attention of the example, which adds flags that the models of this package have too."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        parser.add_argument("--waitk-lagging", type=int, required=True)
        parser.add_argument("--noise-type", default="flat")


@pytest.mark.parametrize("simul_type", SIMUL_TYPES)
@pytest.mark.parametrize("arch", ARCHS)
def test_the_example_takes_no_flag_away(monkeypatch: pytest.MonkeyPatch, arch: str, simul_type: str) -> None:
    registry = {"registry": {"waitk": OfExample, "waitk_fixed_pre_decision": OfExample}, "default": None}
    monkeypatch.setitem(REGISTRIES, "simul_type", registry | {"dataclass_registry": {}})
    share_simul_type()
    command = ["data", "--task", "speech_to_text_mla", "--arch", arch, *TRAINING, "--simul-type", simul_type]
    args = options.parse_args_and_arch(options.get_training_parser(), [*command, "--waitk-lagging", "1-9"])
    assert (args.simul_type, args.waitk_lagging) == (simul_type, "1-9")
    assert not hasattr(args, "noise_type")


@pytest.mark.slow  # it imports fairseq again
def test_the_flag_is_parsed_beside_the_real_example(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(Path(fairseq.__file__).parent / "examples")  # its wheel has them inside
    code = f"""
import sys
sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]
from fairseq import options
from fairseq.registry import REGISTRIES
assert "simul_type" in REGISTRIES
sys.argv = ["fairseq-train", "data", "--user-dir", {str(ROOT / "mla_fairseq")!r}, *sys.argv[1:]]
print(options.parse_args_and_arch(options.get_training_parser()).simul_type)
"""
    flags = ["--task", "speech_to_text_mla", "--arch", ARCHS[1], *TRAINING, "--simul-type", SIMUL_TYPES[-1]]
    done = subprocess.run([sys.executable, "-c", code, *flags], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == [SIMUL_TYPES[-1]], done.stderr[-2000:]
