"""``--user-dir`` registers models, tasks and mechanisms, whichever import comes first and however the folder is named.

Each case needs a process in which ``mla_fairseq`` was never imported: one is started that has imported fairseq alone,
and it forks for every case.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORKS = """
import json, os, sys, traceback
from fairseq import options

assert not any(name.startswith("mla_fairseq") for name in sys.modules)
for name, (folder, before, flags, after) in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        try:
            os.chdir(folder)
            exec(before)
            sys.argv = ["fairseq-train", ".", *flags]
            args = options.parse_args_and_arch(options.get_training_parser())
            exec(after)
            print(json.dumps([name, args.arch, args.task, args.attn_type]), flush=True)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.wait()
"""
MECHANISM = """
import mla_fairseq
from mla_fairseq.attention import LinearAttention, register_attention

@register_attention("own")
class Own(LinearAttention):
    def features(self, x):
        return x.exp()
"""
IMPORT = "import mla_fairseq"
BUILD = "from mla_fairseq.models.options import build_site; build_site(args, 'encoder', 8)"
CASES = {
    "relative": (ROOT, "", "mla_fairseq", IMPORT),
    "relative-with-dots": (ROOT / "tests", "", "../mla_fairseq", BUILD),
    "absolute-from-elsewhere": ("/", "", str(ROOT / "mla_fairseq"), IMPORT),
    "imported-before": (ROOT, IMPORT, "mla_fairseq", BUILD),
    "attention-imported-before": (ROOT, "import mla_fairseq.attention", "mla_fairseq", BUILD),
    "imported-and-no-user-dir": (ROOT, IMPORT, None, BUILD),
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What each case parsed; a case that failed is missing."""
    package = tmp_path_factory.mktemp("user") / "my_attention"
    package.mkdir()
    (package / "__init__.py").write_text(MECHANISM, encoding="utf-8")
    command = ["--arch", "s2t_transformer_mla_tiny", "--task", "speech_to_text_mla"]
    cases = {
        name: (str(folder), before, [*command, "--attn-type", "elu", *(["--user-dir", user] if user else [])], after)
        for name, (folder, before, user, after) in CASES.items()
    }
    own = [*command, "--attn-type", "own", "--user-dir"]
    cases["own-package"] = (str(ROOT), "", [*own, str(package)], BUILD)
    cases["own-package-imported-before"] = (str(package.parent), "import my_attention", [*own, "my_attention"], BUILD)
    cases["own-package-after-ours"] = (str(package.parent), IMPORT, [*own, "my_attention"], BUILD)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(package.parent)])}
    done = subprocess.run(
        [sys.executable, "-c", FORKS, json.dumps(cases)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return {name: parsed for name, *parsed in map(json.loads, done.stdout.splitlines())} | {"stderr": done.stderr}


@pytest.mark.parametrize("name", CASES)
def test_the_package_is_known(outcome: dict, name: str) -> None:
    assert outcome.get(name) == ["s2t_transformer_mla_tiny", "speech_to_text_mla", "elu"], outcome["stderr"]


@pytest.mark.parametrize("name", ["own-package", "own-package-imported-before", "own-package-after-ours"])
def test_a_package_of_ones_own_adds_to_it(outcome: dict, name: str) -> None:
    assert outcome.get(name) == ["s2t_transformer_mla_tiny", "speech_to_text_mla", "own"], outcome["stderr"]


def test_a_fresh_process_ends_with_the_line_that_names_the_mend(corpus: Path) -> None:
    """The command as a user types it, in the checkout.

    The mechanisms are asked for in another process: other tests register some in this one.
    """
    command = [sys.executable, "-m", "fairseq_cli.train", str(corpus), "--user-dir", "mla_fairseq"]
    flags = ["--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", "--attn-type", "sofmax"]
    done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    ask = "from mla_fairseq.attention import available_attention; print(', '.join(available_attention()))"
    known = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    last = done.stderr.rstrip().rpartition("\n")[2]
    mend = f"error: argument --attn-type: unknown attention 'sofmax': choose one of {known.strip()}"
    assert "softmax" in known and last.endswith(mend)
