"""Training on two processes: it gives what one process gives with ``--update-freq 2``, and resumes where it stopped."""

import errno
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.distributed import DistributedTimeoutWrapper, LegacyDistributedDataParallel, ModuleProxyWrapper
from fairseq.trainer import Trainer
from omegaconf import OmegaConf
from torch import nn
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from mla_fairseq.attention import available_attention
from mla_fairseq.checkpoints import load_training
from mla_fairseq.data.prepare_speech import Options, prepare
from mla_fairseq.models.distributed import place, unwrapped
from mla_fairseq.models.simul import SIMUL_TYPES
from mla_fairseq.models.wait_k import WaitK
from mla_fairseq.tasks.ending import end_quietly
from tests.data.voice import write_voice
from tests.models.conftest import EVERYWHERE, IN_ORDER, SIZES, STREAMING, TRAINING, Build, write_corpus
from tests.models.test_speech_commands import SIZES as SPEECH_SIZES
from tests.processes import run_together
from tests.programs import ROOT, run

STILL = "--dropout 0 --attention-dropout 0 --activation-dropout 0"
CHUNKS = "--fixed-pre-decision-ratio 1 --encoder-chunk-size 2 --source-length 60 --target-length-fixed 12"
STOCK_NORMS = "--conformer-block-norm --conformer-conv-norm batch"
SIMUL = f"--arch s2t_transformer_simul_mla {CHUNKS} --noise-var 0"
LATENCY = "--criterion latency_augmented_label_smoothed_cross_entropy_mla --latency-avg-weight 0.1"
OFFLINE = "--arch s2t_transformer_mla"
PREDICTOR = "--length-predictor --criterion label_smoothed_cross_entropy_mla"
SPEECH = (
    f"--task text_to_speech_mla --arch tts_transformer_mla {SPEECH_SIZES} --encoder-dropout 0 --prenet-dropout 0 "
    "--postnet-dropout 0 --use-guided-attention-loss --bce-pos-weight 5 --optimizer adam --lr 0.01 --batch-size 5 "
    "--criterion tacotron2_mla --length-predictor --num-workers 0 --cpu --disable-validation --no-progress-bar "
    "--seed 1 --required-batch-size-multiple 1"
)
LEGACY, TORCH = "legacy_ddp", "pytorch_ddp"


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a data folder with 22 utterances to train on, which are six batches of at most four."""
    return write_corpus(tmp_path_factory.mktemp("corpus"), {"train": 22, "valid": 5, "dev": 4})


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare a speaker's recordings: 19 of them to train on, which are four batches of at most five."""
    folder = tmp_path_factory.mktemp("speech")
    return prepare(write_voice(folder / "voice"), folder / "data", Options(dev=2, test=3)).parent


@pytest.fixture(autouse=True)
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every process write its losses, unrounded, and the model that it has where the first one saves it.

    Dropout that has no flag is left out, because processes and the batches of one process draw other masks.
    """
    reduce, gather = Trainer._reduce_and_log_stats, Trainer.consolidate_optimizer

    def reduce_and_write(self: Trainer, logs: list[dict[str, Any]], size: float, norm: Any = None) -> Any:
        loss = sum(float(log["loss"]) for log in logs) / float(size)
        with Path(self.cfg.checkpoint.save_dir, f"losses{place()[0]}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps([loss, float(norm or 0)]) + "\n")
        return reduce(self, logs, size, norm)

    def write_model(self: Trainer) -> None:
        torch.save(self.get_model().state_dict(), Path(self.cfg.checkpoint.save_dir, f"model{place()[0]}.pt"))
        gather(self)

    monkeypatch.setattr(Trainer, "_reduce_and_log_stats", reduce_and_write)
    monkeypatch.setattr(Trainer, "consolidate_optimizer", write_model)
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, x: x)


def train(data: Path, folder: Path, flags: str, count: int = 2, updates: int = 4) -> Path:
    """Train as ``count`` processes or, if that is 1, as one process with ``--update-freq 2``; return the folder."""
    folder.mkdir(exist_ok=True)
    if not flags.startswith("--task"):
        flags = f"--task speech_to_text_mla {shlex.join([*SIZES, *TRAINING])} {flags}"
    command = ["fairseq-train", data, shlex.split(f"{flags} {STILL}"), "--max-update", updates, "--save-dir", folder]
    ended = run_together(*command, count=count) if count > 1 else [run(*command, "--update-freq", 2)]
    assert not any(done.code for done in ended), "\n".join(done.err[-2000:] for done in ended)
    return folder


def losses(folder: Path, rank: int = 0) -> list[list[float]]:
    """Return the loss and the norm of the gradient of each update."""
    return [json.loads(line) for line in (folder / f"losses{rank}.jsonl").read_text(encoding="utf-8").splitlines()]


def state(folder: Path, rank: int = 0) -> dict[str, torch.Tensor]:
    """Return parameters and buffers of the model of one process."""
    return torch.load(folder / f"model{rank}.pt", weights_only=True)


def check_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Check that two models are the same to the last bit."""
    assert one.keys() == other.keys() and not [name for name in one if not torch.equal(one[name], other[name])]


def check_equal(data: Path, folder: Path, flags: str, updates: int = 4) -> tuple[Path, Path]:
    """Check that two processes train as one does, and that both have the same model; return both folders."""
    two, one = (train(data, folder / str(count), flags, count, updates) for count in (2, 1))
    assert len(losses(one)) == updates
    for (loss, norm), (expected, expected_norm) in zip(losses(two), losses(one), strict=True):
        assert loss == pytest.approx(expected, rel=1e-5)
        assert norm == pytest.approx(expected_norm, rel=1e-4)
    assert losses(two, 0) == losses(two, 1)
    check_same(state(two, 0), state(two, 1))
    return two, one


def check_resumed(data: Path, folder: Path, flags: str) -> None:
    """Check that a training that stopped after 2 of 4 updates, within an epoch, continues as if it had not."""
    whole = train(data, folder / "whole", flags)
    for updates in (2, 4):
        stopped = train(data, folder / "stopped", flags, updates=updates)
    assert losses(stopped) == losses(whole)
    for rank in (0, 1):
        check_same(state(stopped, rank), state(whole, rank))


TOGETHER = {
    "length predictor": f"{OFFLINE} --attn-type cosformer {PREDICTOR} --ddp-backend {LEGACY}",
    "wait-k 1-9": f"{SIMUL} --waitk-lagging 1-9 --ddp-backend {LEGACY}",
    "hard_aligned": f"{SIMUL} --simul-type hard_aligned {LATENCY} --ddp-backend {TORCH}",
}
TRANSCRIPTS = "--criterion label_smoothed_cross_entropy_mla --ctc-weight 0.3 --ctc-text both"
WITH_CTC = "--criterion label_smoothed_cross_entropy_with_ctc --ctc-weight 0.3"
MONOTONIC = [name for name in SIMUL_TYPES if not name.startswith("waitk")]
ALL = {
    "softmax": f"{OFFLINE} --ddp-backend {LEGACY}",
    "ctc": f"{OFFLINE} {WITH_CTC} --ddp-backend {LEGACY}",
    "ctc, torch": f"{OFFLINE} {WITH_CTC} --ddp-backend {TORCH}",
    "ctc of transcripts, torch": f"{OFFLINE} {TRANSCRIPTS} --ddp-backend {TORCH}",
    "length predictor, torch": f"{OFFLINE} --attn-type cosformer {PREDICTOR} --ddp-backend {TORCH}",
    "predicted length": f"{OFFLINE} --attn-type cosformer {PREDICTOR} --train-target-length predicted "
    f"--length-gradient --ddp-backend {TORCH}",
    "wait-k 1-9, torch": f"{SIMUL} --waitk-lagging 1-9 --ddp-backend {TORCH}",
    "convolutions": f"{SIMUL} --arch convtransformer_simul_mla --waitk-lagging 1-9 --ddp-backend {TORCH}",
    "latency later": f"{SIMUL} --simul-type chunkwise {LATENCY} --latency-update-after 2 --ddp-backend {LEGACY}",
    "frozen encoder": f"{OFFLINE} --encoder-freezing-updates 2 --ddp-backend {TORCH} --find-unused-parameters",
    "heartbeat": f"{OFFLINE} --attn-type cosformer {PREDICTOR} --ddp-backend {LEGACY} --heartbeat-timeout 600",
    **{f"{name}, torch": f"{OFFLINE} {flags} --ddp-backend {TORCH}" for name, flags in EVERYWHERE.items()},
    **{f"{name}, streaming": f"{SIMUL} {flags} --ddp-backend {TORCH}" for name, flags in STREAMING.items()},
    **{name: f"{SIMUL} --simul-type {name} {LATENCY} --ddp-backend {LEGACY}" for name in MONOTONIC},
    **{
        f"{name}, leap": f"{SIMUL} --simul-type {name} {LATENCY} --energy-bias --cross-attn-type leap "
        f"--ddp-backend {TORCH}"
        for name in MONOTONIC
    },
}  # fmt: skip


@pytest.mark.parametrize("flags", TOGETHER.values(), ids=TOGETHER)
def test_two_processes_train_as_one_does(spoken: Path, tmp_path: Path, flags: str) -> None:
    two, one = (state(folder) for folder in check_equal(spoken, tmp_path, flags))
    for name in (name for name in one if name.endswith("tokens_and_states")):
        assert float(one[name][0]) > 0 and one[name].div(2).equal(two[name]), "of two processes it is the mean"


@pytest.mark.slow
@pytest.mark.parametrize("flags", ALL.values(), ids=ALL)
def test_every_model_trains_on_two_processes(spoken: Path, tmp_path: Path, flags: str) -> None:
    check_equal(spoken, tmp_path, flags)


@pytest.mark.parametrize("backend", [LEGACY, pytest.param(TORCH, marks=pytest.mark.slow)])
def test_boundaries_train_on_two_processes(tmp_path: Path, backend: str) -> None:
    corpus = write_corpus(tmp_path, {"train": 22, "valid": 5}, bins=80)
    talks = "--context-ratio 0.8 --lost-onset-ratio 0.2 --noise-ratio 0.5 --boundary-weight 1"
    criterion = "--criterion label_smoothed_cross_entropy_mla"
    check_equal(corpus, tmp_path, f"{SIMUL} --waitk-lagging 1-9 {talks} {criterion} --ddp-backend {backend}")


def test_text_to_speech_trains_on_two_processes(voice: Path, tmp_path: Path) -> None:
    """Running averages of batch norms, too, are the same in both; other numbers of them than in one process."""
    two, _ = check_equal(voice, tmp_path, f"{SPEECH} --ddp-backend {LEGACY}")
    assert not state(two)["decoder.postnet.convolutions.0.1.running_mean"].eq(0).any()


@pytest.mark.slow
@pytest.mark.parametrize("backend", [LEGACY, TORCH])
@pytest.mark.parametrize("flags", EVERYWHERE.values(), ids=EVERYWHERE)
def test_every_speech_model_trains_on_two_processes(voice: Path, tmp_path: Path, flags: str, backend: str) -> None:
    check_equal(voice, tmp_path, f"{SPEECH} {flags} --ctc-weight 0.1 --ddp-backend {backend}")


def test_two_processes_resume(spoken: Path, tmp_path: Path) -> None:
    check_resumed(spoken, tmp_path, TOGETHER["length predictor"])


@pytest.mark.slow
@pytest.mark.parametrize("flags", [TOGETHER["wait-k 1-9"], TOGETHER["hard_aligned"], ALL["latency later"]])
def test_every_policy_resumes_on_two_processes(spoken: Path, tmp_path: Path, flags: str) -> None:
    check_resumed(spoken, tmp_path, flags)


@pytest.mark.slow
@pytest.mark.parametrize("backend", [LEGACY, TORCH])
def test_text_to_speech_resumes_on_two_processes(voice: Path, tmp_path: Path, backend: str) -> None:
    check_resumed(voice, tmp_path, f"{SPEECH} --ddp-backend {backend}")


@pytest.mark.slow
@pytest.mark.parametrize("backend", [LEGACY, TORCH])
@pytest.mark.parametrize("flag", ["--finetune-from-model", "--restore-file"])
def test_two_processes_start_from_a_checkpoint(spoken: Path, tmp_path: Path, flag: str, backend: str) -> None:
    flags = f"{OFFLINE} --attn-type cosformer {PREDICTOR} --ddp-backend {backend}"
    first = train(spoken, tmp_path / "first", flags, updates=2)
    second = train(spoken, tmp_path / "second", f"{flags} {flag} {first}/checkpoint_last.pt --lr 0", updates=3)
    weights = {name: x for name, x in state(first).items() if not name.endswith(("batches", "tokens_and_states"))}
    for rank in (0, 1):
        check_same({name: state(second, rank)[name] for name in weights}, weights)


@pytest.mark.slow
@pytest.mark.parametrize("sentences", [5, 1])
def test_validation_and_numbered_checkpoints(tmp_path: Path, sentences: int) -> None:
    """With one sentence, the second process has nothing to validate; with 22 in fives, nothing for the third update."""
    data = write_corpus(tmp_path, {"train": 22, "valid": sentences})
    flags = (
        f"{OFFLINE} --attn-type cosformer {PREDICTOR} --ddp-backend {LEGACY} --batch-size 5 --save-interval-updates 2"
    )
    flags = f"--task speech_to_text_mla {shlex.join([*SIZES, *TRAINING])} {flags}".replace("--disable-validation", "")
    two, one = (train(data, tmp_path / str(count), flags, count, updates=6) for count in (2, 1))
    for name in ("checkpoint_1_2.pt", "checkpoint2.pt", "checkpoint_best.pt", "checkpoint_last.pt"):
        found, expected = (torch.load(folder / name, weights_only=True)["extra_state"] for folder in (two, one))
        assert found["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-5)
        assert found["train_iterator"] | {"iterations_in_epoch": 0} == expected["train_iterator"] | {
            "iterations_in_epoch": 0
        }
    average = tmp_path / "average.pt"
    done = run("mla-average", "--inputs", two, "--last", 2, "--output", average)
    assert done.code == 0 and average.is_file(), done.err


@pytest.mark.slow
def test_two_processes_choose_the_newest_whole_checkpoint(spoken: Path, tmp_path: Path) -> None:
    flags = f"{TOGETHER['length predictor']} --save-interval-updates 1"
    whole = train(spoken, tmp_path / "whole", flags)
    stopped = train(spoken, tmp_path / "stopped", flags, updates=2)
    (stopped / "checkpoint_last.pt").write_bytes(b"PK cut")
    train(spoken, stopped, flags)
    assert losses(stopped) == losses(whole)
    for rank in (0, 1):
        check_same(state(stopped, rank), state(whole, rank))


@pytest.mark.slow
def test_processes_that_divide_a_set_write_a_log_each(spoken: Path, tmp_path: Path) -> None:
    model = train(spoken, tmp_path, f"{SIMUL} --waitk-lagging 1-9", count=1) / "checkpoint_last.pt"
    command = ["fairseq-generate", spoken, "--task", "speech_to_text_mla", "--gen-subset", "valid", "--path", model]
    command += ["--beam", 1, "--max-len-b", 8, "--batch-size", 2, "--simul-waitk-lagging", 2, "--cpu"]
    log = tmp_path / "instances.log"
    for more in ([], *(["--distributed-world-size", 2, "--distributed-rank", rank] for rank in (0, 1))):
        done = run(*command, "--num-workers", 0, "--simul-log", log, *more)
        assert done.code == 0, done.err
    first, second = (Path(f"{log}.{rank}").read_text(encoding="utf-8").splitlines() for rank in (0, 1))
    assert first and second
    assert sorted(first + second) == sorted(log.read_text(encoding="utf-8").splitlines())


def test_a_process_without_a_batch_is_refused(spoken: Path, tmp_path: Path) -> None:
    model = train(spoken, tmp_path, OFFLINE, count=1, updates=1) / "checkpoint_last.pt"
    command = ["fairseq-generate", spoken, "--task", "speech_to_text_mla", "--gen-subset", "valid", "--path", model]
    command += ["--cpu", "--num-workers", 0, "--distributed-world-size"]
    for flags, words in (
        ([2, "--distributed-rank", 1], "--distributed-world-size is above the number of batches (2 > 1): decrease it"),
        ([2, "--distributed-rank", 5], "--distributed-rank is 5, but --distributed-world-size is 2: give a"),
    ):
        done = run(*command, *flags)
        assert done.code == 1 and done.last_line.startswith(f"error: {words}"), done.err


def test_a_reported_mistake_of_a_process_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: shown.append(error))
    end_quietly()
    others = (
        ValueError(),
        OSError(errno.EIO, "x"),
        ProcessExitedException("", 0, 1, -9, "SIGKILL"),
        ProcessRaisedException("", 0, 1),
    )
    for error in (ProcessExitedException("", 0, 1, 1), *others):
        sys.excepthook(type(error), error, None)
    assert shown == list(others)
    sys.excepthook(OSError, OSError(errno.ENOSPC, "No space left on device"), None)
    assert shown == list(others)
    assert capsys.readouterr().err == "error: no space is left on the disk: make room, or write to another\n"


def test_ctrl_c_ends_the_programs_of_others_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    shown = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: shown.append(error))
    end_quietly()
    for program in ("fairseq-train", "simuleval", "simulstream_inference", "mine.py"):
        monkeypatch.setattr(sys, "argv", [f"bin/{program}"])
        sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert len(shown) == 1 and capsys.readouterr().err == "stopped\n" * 3


@pytest.mark.slow
def test_fairseq_starts_a_process_for_each_gpu(spoken: Path, tmp_path: Path) -> None:
    """Two GPUs are pretended: fairseq counts them, and with ``--cpu`` uses none."""
    script = tmp_path / "train.py"
    script.write_text(
        "import torch\ntorch.cuda.device_count = lambda: 2\nfrom fairseq_cli.train import cli_main\n"
        "if __name__ == '__main__':\n    cli_main()\n"
    )
    flags = f"{SIMUL} --simul-type infinite_lookback {LATENCY} --ddp-backend {LEGACY} --distributed-backend gloo"
    training = [*SIZES, *TRAINING, "--max-update", "2", "--user-dir", "mla_fairseq", "--task", "speech_to_text_mla"]
    command = [sys.executable, str(script), str(spoken), *training, *flags.split(), "--save-dir", str(tmp_path)]
    settings = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run(command, **settings)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "training on 2 devices" in done.stdout and (tmp_path / "checkpoint_last.pt").is_file()
    done = subprocess.run([*command, "--encoder-chunk-size", "-2"], **settings)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: --encoder-chunk-size must be at least 0" in done.stderr


def test_the_model_is_found_inside_every_wrapper(build: Build) -> None:
    model = build().model
    proxy = ModuleProxyWrapper(LegacyDistributedDataParallel(model, None))
    for wrapped in (model, proxy, proxy.module, DistributedTimeoutWrapper(proxy, timeout=-1)):
        assert unwrapped(wrapped) is model


def test_processes_draw_the_k_that_one_process_draws_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = WaitK(1, 9, 1)
    expected = [policy.draw() for _ in range(12)]
    assert len(set(expected)) > 3
    for rank in range(3):
        torch.manual_seed(0)
        monkeypatch.setattr("mla_fairseq.models.distributed.place", lambda rank=rank: (rank, 3))
        assert [policy.draw() for _ in range(4)] == expected[rank::3]


@pytest.mark.parametrize("mechanism", [name for name in available_attention() if name in EVERYWHERE])
def test_every_parameter_gets_a_gradient_or_is_frozen(build: Build, mechanism: str) -> None:
    """torch's distributed training stops at another one."""
    offline = build(flags=EVERYWHERE[mechanism])
    built = [offline, build("s2t_transformer_simul_mla", f"{CHUNKS} {STREAMING[mechanism]}")]
    if mechanism not in IN_ORDER:
        flags = f"{CHUNKS} --cross-attn-type {mechanism} --energy-bias"
        built += [build("s2t_transformer_simul_mla", f"{flags} --simul-type {name}") for name in MONOTONIC]
    if mechanism == "softmax":
        built += [build("s2t_conformer_mla", "--pos-enc-type rel_pos"), build("s2t_conformer_simul_mla", STOCK_NORMS)]
    for one in built:
        one.model.train()(**one.batch()["net_input"])[0].sum().backward()
        assert not [name for name, x in one.model.named_parameters() if x.requires_grad and x.grad is None]


def test_options_in_the_form_that_processes_exchange_are_no_checkpoint(tmp_path: Path) -> None:
    """fairseq would build a model from them that ``load_training`` has not looked at."""
    cfg = OmegaConf.create({"model": {"_name": "s2t_transformer_mla"}})
    torch.save({"model": {}, "cfg": cfg, "optimizer_history": []}, tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt", weights_only=True)["cfg"] == cfg
    with pytest.raises(ValueError, match="has cfg of another type than fairseq saves"):
        load_training(tmp_path / "a.pt")
