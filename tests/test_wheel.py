"""The wheel in an environment without the checkout: it prepares, trains, decodes, streams, and has every file."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.programs import ENTRY_POINTS, ROOT
from tests.recipes.noise import make_corpus

OURS = [name for name in ENTRY_POINTS if name.startswith("mla-")]
SIZES = (
    "--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --decoder-embed-dim 16 --encoder-ffn-embed-dim 16 "
    "--decoder-ffn-embed-dim 16 --encoder-attention-heads 2 --decoder-attention-heads 2 --conv-channels 16"
)
TRAINING = (
    "--train-subset train_st --valid-subset dev_st --attn-type cosformer --source-length 50 --target-length-fixed 20 "
    "--waitk-lagging 1-3 --criterion label_smoothed_cross_entropy --optimizer adam --lr 0.00001 --max-tokens 400 "
    "--max-update 2 --num-workers 0 --cpu"
)
HELP = """
import contextlib, io
from importlib.metadata import distribution

for script in distribution("mla-fairseq").entry_points:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:
        script.load()(["--help"])
    assert text.getvalue().startswith(f"usage: {script.name} "), script
    print(script.name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, without the files of an earlier build in the checkout."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("mla_fairseq", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    (path,) = folder.glob("*.whl")
    return path


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--no-index", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


class Environment:
    """A virtual environment with the wheel, which sees the dependencies of this environment but not its package.

    Python ignores ``.pth`` files in a folder that a ``.pth`` file names, so it does not find the editable install.
    """

    def __init__(self, root: Path, wheel: Path) -> None:
        self.bin, self.folder = root / "environment" / "bin", root / "empty"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "environment"], check=True, timeout=120)
        pip("--python", self.bin / "python", "install", "--no-deps", wheel)
        (site,) = root.glob("environment/lib/python*/site-packages")
        (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
        self.package = site / "mla_fairseq"
        self.folder.mkdir()
        for name in ("fairseq-train", "fairseq-generate", "simuleval"):  # as pip would install them here
            module, function = ENTRY_POINTS[name].split(":")
            script = f"#!{self.bin / 'python'}\nfrom {module} import {function}\n{function}()\n"
            (self.bin / name).write_text(script)
            (self.bin / name).chmod(0o755)

    def run(self, program: str, *arguments: object) -> str:
        """Run a program of the environment in an empty folder; return its output."""
        words = [str(word) for words in arguments for word in (words if isinstance(words, list) else [words])]
        variables = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
        variables |= {"PATH": f"{self.bin}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        command = [str(self.bin / program), *words]
        done = subprocess.run(
            command, cwd=self.folder, env=variables, capture_output=True, text=True, timeout=300, errors="replace"
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("installed"), wheel)


def test_the_wheel_has_every_file(wheel: Path) -> None:
    paths = [path for folder in ("mla_fairseq", "configs") for path in (ROOT / folder).rglob("*")]
    files = {path.relative_to(ROOT) for path in paths if path.is_file() and "__pycache__" not in path.parts}
    wanted = {(Path("mla_fairseq") / path if path.parts[0] == "configs" else path).as_posix() for path in files}
    assert {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name} == wanted


def test_the_package_is_that_of_the_wheel(environment: Environment) -> None:
    found = environment.run("python", "-c", "import mla_fairseq; print(mla_fairseq.__file__)").strip()
    assert Path(found) == environment.package / "__init__.py"


def test_every_console_script_explains_itself(environment: Environment) -> None:
    assert environment.run("python", "-c", HELP).split() == sorted(OURS)
    assert [name for name in OURS if not os.access(environment.bin / name, os.X_OK)] == []


def test_a_packaged_recipe_is_shown(environment: Environment) -> None:
    commands = environment.run("mla-recipe", "--dry-run", "mustc/st.yaml").splitlines()
    programs = [shlex.split(line)[0] for line in commands if not line.startswith("#")]
    assert programs == ["mla-prepare", "fairseq-train", "mla-average", "fairseq-generate"]
    flags = shlex.split(commands[3])
    assert (environment.folder / flags[flags.index("--user-dir") + 1]).resolve() == environment.package.resolve()


def test_the_wheel_prepares_trains_decodes_and_streams(environment: Environment) -> None:
    folder = environment.folder
    make_corpus(folder / "corpora")
    prepare = ["--data", "corpora", "--pairs", "en-de", "--vocab-type", "char", "--cmvn", "global", "--workers", 1]
    environment.run("mla-prepare", prepare, "--output", "prepared")
    task = ["prepared/en-de", "--user-dir", environment.package, "--task", "speech_to_text_mla"]
    task += ["--config-yaml", "config_st.yaml"]
    training = shlex.split(f"--arch s2t_transformer_simul_mla_tiny {SIZES} {TRAINING}")
    environment.run("fairseq-train", task, training, "--save-dir", "model")
    model = folder / "model" / "checkpoint_last.pt"
    decoding = ["--gen-subset", "tst-COMMON_st", "--path", model, "--max-len-b", 5, "--max-tokens", 1000, "--cpu"]
    generated = environment.run("fairseq-generate", task, decoding)
    assert len([line for line in generated.splitlines() if line.startswith("D-")]) == 4
    environment.run("mla-segments", "--data", "corpora", "--pair", "en-de", "--output", "segments", "--limit", 2)
    lists = ["--source", "segments/tst-COMMON.wav_list", "--target", "segments/tst-COMMON.de", "--output", "streamed"]
    agent = ["--agent-class", "mla_fairseq.agents.WaitKAgent", "--model-path", model, "--data-bin", "prepared/en-de"]
    environment.run("simuleval", agent, lists, "--source-segment-size", 280, "--max-len-b", 5)
    lines = (folder / "streamed" / "instances.log").read_text(encoding="utf-8").splitlines()
    assert [len(json.loads(line)["delays"]) > 0 for line in lines] == [True, True]
