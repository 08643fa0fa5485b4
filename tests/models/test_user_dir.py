"""``--user-dir`` registers models, tasks and mechanisms, whichever import comes first and however the folder is named.

Each case needs a process in which ``mla_fairseq`` was never imported: one is started without it, and it forks for every
case, first without fairseq, then with it.
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
import hydra, sklearn.utils, torch  # most of the time that importing fairseq takes

def fork(cases):
    for name, (folder, before, flags, after) in cases.items():
        if os.fork() == 0:
            try:
                os.chdir(folder)
                exec(before)
                from fairseq import options
                sys.argv = ["fairseq-train", ".", *flags]
                args = options.parse_args_and_arch(options.get_training_parser())
                exec(after)
                print(json.dumps([name, args.arch, args.task, args.attn_type]), flush=True)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.wait()

assert not any(name.startswith(("fairseq", "mla_fairseq")) for name in sys.modules)
ours_first, fairseq_first = json.loads(sys.argv[1])
fork(ours_first)
from fairseq import options
assert not any(name.startswith("mla_fairseq") for name in sys.modules)
fork(fairseq_first)
"""
MECHANISM = """
from mla_fairseq import plugin
from mla_fairseq.attention import LinearAttention, register_attention

@register_attention("own")
class Own(LinearAttention):
    def features(self, x):
        return x.exp()
"""
IMPORT = "import mla_fairseq"
ATTENTION = """
import mla_fairseq.attention
assert not any(name.startswith("fairseq") for name in sys.modules)
"""
BUILD = "from mla_fairseq.models.options import build_site; build_site(args, 'encoder', 8)"
OURS_FIRST = {
    "attention-first": (ROOT, ATTENTION, "mla_fairseq", BUILD),
    "attention-first-from-elsewhere": ("/", ATTENTION, str(ROOT / "tests" / ".." / "mla_fairseq"), BUILD),
    "streaming-first": (ROOT, "import mla_fairseq.streaming", "mla_fairseq", BUILD),
    "agents-first": (ROOT, "from mla_fairseq.agents import WaitKAgent", "mla_fairseq", BUILD),
    "plugin-first-and-no-user-dir": (ROOT, "from mla_fairseq import plugin", None, BUILD),
}
FAIRSEQ_FIRST = {
    "relative": (ROOT, "", "mla_fairseq", IMPORT),
    "relative-with-dots": (ROOT / "tests", "", "../mla_fairseq", BUILD),
    "absolute-from-elsewhere": ("/", "", str(ROOT / "mla_fairseq"), IMPORT),
    "imported-before": (ROOT, IMPORT, "mla_fairseq", BUILD),
    "attention-imported-before": (ROOT, "import mla_fairseq.attention", "mla_fairseq", BUILD),
    "imported-and-no-user-dir": (ROOT, IMPORT, None, BUILD),
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return the options that each case parsed; a failed case is missing."""
    package = tmp_path_factory.mktemp("user") / "my_attention"
    package.mkdir()
    (package / "__init__.py").write_text(MECHANISM, encoding="utf-8")
    command = ["--arch", "s2t_transformer_mla_tiny", "--task", "speech_to_text_mla"]
    elu = [*command, "--attn-type", "elu"]
    first, second = (
        {
            name: (str(folder), before, elu + (["--user-dir", user] if user else []), after)
            for name, (folder, before, user, after) in cases.items()
        }
        for cases in (OURS_FIRST, FAIRSEQ_FIRST)
    )
    own = [*command, "--attn-type", "own", "--user-dir"]
    first["own-package-first"] = (str(package.parent), "import my_attention", [*own, "my_attention"], BUILD)
    first["own-package-after-attention"] = (str(package.parent), ATTENTION, [*own, "my_attention"], BUILD)
    second["own-package"] = (str(ROOT), "", [*own, str(package)], BUILD)
    second["own-package-imported-before"] = (str(package.parent), "import my_attention", [*own, "my_attention"], BUILD)
    second["own-package-after-ours"] = (str(package.parent), IMPORT, [*own, "my_attention"], BUILD)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(package.parent)])}
    done = subprocess.run(
        [sys.executable, "-c", FORKS, json.dumps([first, second])],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return {name: parsed for name, *parsed in map(json.loads, done.stdout.splitlines())} | {"stderr": done.stderr}


@pytest.mark.parametrize("name", [*OURS_FIRST, *FAIRSEQ_FIRST])
def test_the_package_is_registered(outcome: dict, name: str) -> None:
    assert outcome.get(name) == ["s2t_transformer_mla_tiny", "speech_to_text_mla", "elu"], outcome["stderr"]


@pytest.mark.parametrize(
    "name",
    [
        "own-package",
        "own-package-first",
        "own-package-after-attention",
        "own-package-imported-before",
        "own-package-after-ours",
    ],
)
def test_a_users_package_adds_to_it(outcome: dict, name: str) -> None:
    assert outcome.get(name) == ["s2t_transformer_mla_tiny", "speech_to_text_mla", "own"], outcome["stderr"]


def test_a_fresh_process_ends_with_the_line_that_names_the_fix(corpus: Path) -> None:
    """Run the command as a user types it, in the checkout.

    Another process lists the mechanisms: other tests register some in this one.
    """
    command = [sys.executable, "-m", "fairseq_cli.train", str(corpus), "--user-dir", "mla_fairseq"]
    flags = ["--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", "--attn-type", "sofmax"]
    done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    ask = "from mla_fairseq.attention import available_attention; print(', '.join(available_attention()))"
    known = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    last = done.stderr.rstrip().rpartition("\n")[2]
    fix = f"error: argument --attn-type: unknown attention 'sofmax': choose one of {known.strip()}; if another package"
    assert "softmax" in known and fix in last
