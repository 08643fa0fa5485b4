#!/usr/bin/env python3
"""Time simultaneous translation of a long recording: compute and memory per segment, minute by minute.

Models of one size process the same audio: linear attention everywhere; softmax with a window in the encoder; and, as in
fairseq's agent, softmax over all audio so far, encoded again at every segment. A recording of an hour with pauses is
translated by a long session and by an agent of SimulEval. Weights are random: the cost does not depend on the words.
"""

from __future__ import annotations

import argparse
import logging
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from unittest import mock

import benchmark
import numpy as np
import torch
from fairseq import options, tasks
from simuleval.data.segments import SpeechSegment
from tqdm import tqdm

from mla_fairseq import plugin  # noqa: F401 -- registers the architectures
from mla_fairseq.agents import WaitKAgent
from mla_fairseq.attention import Full
from mla_fairseq.speech import read_audio
from mla_fairseq.speech.features import NUM_BINS
from mla_fairseq.speech.samples import SAMPLE_RATE
from mla_fairseq.streaming import (
    AlignAttPolicy,
    IncrementalSession,
    LocalAgreementPolicy,
    LongSession,
    MonotonicPolicy,
    OfflineSession,
    SearchOptions,
    Session,
    Translator,
    WaitKPolicy,
)
from mla_fairseq.streaming.frontend import FeatureStream, Normalisation

WAYS = {
    "relu everywhere": "--attn-type relu",
    "cosformer everywhere": "--attn-type cosformer",
    "softmax, window": "--attn-type softmax --encoder-left-chunks 16",
}
AGAIN = "softmax, encoded again"
WHOLE = "--encoder-chunk-size 0"
LIMITS = SearchOptions(max_len_a=0, max_len_b=40)
POLICIES: dict[str, tuple[str, Callable[[Translator], Session]]] = {
    "wait-k": ("", lambda t: IncrementalSession(t, WaitKPolicy(5, t.wait_k.ratio), LIMITS)),
    "monotonic, infinite lookback": (
        "--simul-type infinite_lookback_fixed_pre_decision", lambda t: IncrementalSession(t, MonotonicPolicy(), LIMITS)
    ),
    "AlignAtt, chunked encoder": ("", lambda t: OfflineSession(t, AlignAttPolicy(4), LIMITS)),
    "AlignAtt, full-context encoder": (WHOLE, lambda t: OfflineSession(t, AlignAttPolicy(4), LIMITS)),
    "local agreement, chunked encoder": ("", lambda t: OfflineSession(t, LocalAgreementPolicy(), LIMITS)),
    "local agreement, full-context encoder": (
        WHOLE, lambda t: OfflineSession(t, LocalAgreementPolicy(), LIMITS)
    ),
}  # fmt: skip
SENTENCE = 40
"""Tokens after which a sentence ends, because random weights end none."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--wavs", type=Path, default=Path("runs/data/demo_corpus"), help="folder of 16 kHz recordings, which are joined"
    )
    parser.add_argument("--arch", default="s2t_transformer_simul_mla_s", help="simultaneous architecture")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the recording, in minutes")
    parser.add_argument("--long-minutes", type=float, default=60.0, help="length of the long recording, in minutes")
    parser.add_argument("--again-minutes", type=float, default=2.0, help="minutes in which all audio is encoded again")
    parser.add_argument("--again-every", type=float, default=20.0, help="time between measurements of that, in s")
    parser.add_argument("--segment", type=int, default=280, help="audio that arrives at once, in ms")
    parser.add_argument("--waitk-lagging", type=int, default=5, help="k of wait-k")
    parser.add_argument("--vocabulary", type=int, default=8000, help="number of target symbols")
    parser.add_argument("--threads", type=int, default=2, help="number of torch threads")
    benchmark.add_common_args(parser)
    return parser


def long_recording(folder: Path, minutes: float, pause: float = 0.0) -> np.ndarray:
    """Return samples (time,) of the folder's recordings, joined, and repeated if they are too short.

    Args:
        folder: searched for wav files.
        minutes: length of the result.
        pause: seconds of silence after each recording.

    Raises:
        SystemExit: the folder has no recording.
    """
    paths = sorted(folder.rglob("*.wav"))
    if not paths:
        raise SystemExit(f"error: no wav under {folder}: give a folder of 16 kHz recordings, or run `make demo` first")
    parts, wanted = [], round(minutes * 60 * SAMPLE_RATE)
    for path in cycle(paths):
        audio = read_audio(path)
        parts.append(np.pad(audio, (0, round(pause * SAMPLE_RATE))))
        wanted -= len(parts[-1])
        if wanted <= 0:
            return np.concatenate(parts)[: wanted or None]


def build(args: argparse.Namespace, flags: str) -> Translator:
    """Return a model with random weights, ready to stream."""
    with benchmark.data_folder(args.vocabulary, NUM_BINS) as folder:
        command = f"{folder} --task speech_to_text --config-yaml config.yaml --arch {args.arch} {flags}".split()
        parsed = options.parse_args_and_arch(options.get_training_parser(), command)
        torch.manual_seed(args.seed)
        task = tasks.setup_task(parsed)
        normal = Normalisation(np.full(NUM_BINS, 12, np.float32), np.full(NUM_BINS, 4, np.float32))
        return Translator(task.build_model(parsed), task.target_dictionary, normal)


def segments(samples: np.ndarray, milliseconds: int) -> Iterator[np.ndarray]:
    """Return the segments of a recording."""
    size = milliseconds * SAMPLE_RATE // 1000
    return (samples[start : start + size] for start in range(0, len(samples) - size + 1, size))


def resident() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@dataclass
class Curve:
    """The cost of a stream.

    Attributes:
        minutes: for each minute, mean milliseconds of compute per segment, most KB that the session carries, MB
            resident.
        growth: compute of the last minute, divided by that of a stream that starts there, on the same audio.
    """

    minutes: list[tuple[float, float, float]]
    growth: float


def begin(args: argparse.Namespace, translator: Translator) -> LongSession:
    policy = WaitKPolicy(args.waitk_lagging, translator.wait_k.ratio)
    options = SearchOptions(max_len_a=0, max_len_b=SENTENCE)
    return LongSession(IncrementalSession(translator, policy, options))


class AgentStream:
    """An agent with ``--long-form`` that gets segments as from SimulEval."""

    def __init__(self, args: argparse.Namespace, translator: Translator) -> None:
        WaitKAgent.add_args(parser := argparse.ArgumentParser())
        flags = f"--long-form --waitk-lagging {args.waitk_lagging} --max-len-a 0 --max-len-b {SENTENCE}"
        parsed = parser.parse_args(["--model-path", "", "--data-bin", "", *flags.split()])
        with mock.patch.object(Translator, "load", return_value=translator):  # the model is in no file
            self.agent = WaitKAgent(parsed)

    def push(self, samples: np.ndarray) -> None:
        """Process a segment (time,) in [-1, 1]."""
        self.agent.pushpop(SpeechSegment(content=samples.tolist(), sample_rate=SAMPLE_RATE))

    @property
    def nbytes(self) -> int:
        """Return the bytes that the agent's session carries."""
        return self.agent.states.session.nbytes


def push(session: Session | LongSession | AgentStream, segment: np.ndarray) -> float:
    """Return the milliseconds that a segment takes."""
    start = time.perf_counter()
    session.push(segment)
    return (time.perf_counter() - start) * 1000


def stream(
    args: argparse.Namespace, label: str, start: Callable[[], LongSession | AgentStream], samples: np.ndarray
) -> Curve:
    """Return the cost of the recording as one stream of what ``start`` returns."""
    session, fresh = start(), start()
    minutes, times, fresh_times, most = [], [], [], 0
    audio = list(segments(samples, args.segment))
    minute = min(60_000 // args.segment, len(audio))
    for i, segment in enumerate(tqdm(audio, desc=label, unit="segment"), start=1):
        times.append(push(session, segment))
        most = max(most, session.nbytes)
        if i > len(audio) - minute:
            fresh_times.append(push(fresh, segment))
        if i % minute == 0:
            minutes.append((statistics.mean(times[-minute:]), most / 1024, resident()))
            most = 0
    return Curve(minutes, statistics.mean(times[-minute:]) / statistics.mean(fresh_times))


@torch.no_grad()
def encode_again(args: argparse.Namespace, samples: np.ndarray) -> dict[float, float]:
    """Return the milliseconds of encoding all audio so far, as fairseq's agent does, by seconds of audio."""
    translator = build(args, "--encoder-chunk-size 7")
    encoder = translator.model.encoder
    frames = torch.from_numpy(FeatureStream(translator.normalisation).push(samples, final=True)).unsqueeze(0)
    encoder.view = Full()
    times = {}
    points = np.arange(args.again_every, args.again_minutes * 60 + 1, args.again_every)
    for seconds in tqdm(points, desc=AGAIN, unit="point"):
        audio = frames[:, : round(seconds * 100)]
        run = {"": lambda audio=audio: encoder(audio, torch.tensor([audio.shape[1]]))}
        times[float(seconds)] = benchmark.race(run, repeats=2)[""] * 1000
    return times


def report(args: argparse.Namespace) -> str:
    samples = long_recording(args.wavs, args.minutes)
    models = {label: build(args, flags) for label, flags in WAYS.items()}
    curves = {label: stream(args, label, partial(begin, args, model), samples) for label, model in models.items()}
    again = encode_again(args, samples)
    rows = []
    for minute, costs in enumerate(zip(*(curve.minutes for curve in curves.values()), strict=True)):
        cells = [f"{compute:.1f} / {carried:.0f} / {memory:.0f}" for compute, carried, memory in costs]
        now = again.get(60.0 * (minute + 1))
        rows.append([str(minute + 1), *cells, "" if now is None else f"{now:.0f}"])
    head = ["minute", *(f"{label}: ms / KB / MB" for label in curves), f"{AGAIN}: ms"]
    lines = [benchmark.table(head, rows), "", *(summary(args, name, curve, again) for name, curve in curves.items())]
    return "\n".join([*lines, "", long_table(args, models["relu everywhere"]), "", policy_table(args, samples)])


def long_table(args: argparse.Namespace, translator: Translator) -> str:
    """Return the cost of a long recording with pauses, by a long session and by an agent."""
    samples = long_recording(args.wavs, args.long_minutes, pause=1.0)
    ways = {"long session": partial(begin, args, translator), "agent": partial(AgentStream, args, translator)}
    curves = {label: stream(args, label, start, samples) for label, start in ways.items()}
    last = min(len(curve.minutes) for curve in curves.values())
    rows = []
    for minute in sorted({1, *range(10, last, 10), last}):
        costs = (curve.minutes[minute - 1] for curve in curves.values())
        rows.append(
            [str(minute), *(f"{compute:.1f} / {carried:.0f} / {memory:.0f}" for compute, carried, memory in costs)]
        )
    lines = [f"* {label}: {flatness(curve)}" for label, curve in curves.items()]
    title = f"### A recording of {args.long_minutes:g} minutes with pauses, relu everywhere"
    table = benchmark.table(["minute", *(f"{label}: ms / KB / MB" for label in curves)], rows)
    return "\n".join([title, "", table, "", *lines])


def flatness(curve: Curve) -> str:
    """Return what the last minute costs beside the first, in a line."""
    (_, carried_first, memory_first), (_, carried_last, memory_last) = curve.minutes[0], curve.minutes[-1]
    return (
        f"the last minute costs {curve.growth:.2f} times as much as on a stream that starts there (same audio, in "
        f"turns); {carried_last / carried_first:.3f} times the state of the first minute, and "
        f"{memory_last / memory_first:.3f} times the memory of the process"
    )


def policy_table(args: argparse.Namespace, samples: np.ndarray) -> str:
    """Return the cost of each policy in both halves of an utterance of 20 s, with ReLU and with softmax everywhere."""
    audio = list(segments(samples[: 20 * SAMPLE_RATE], args.segment))
    half, rows = len(audio) // 2, []
    for name, (flags, begin_session) in tqdm(POLICIES.items(), desc="policies", unit="policy"):
        cells = []
        for mechanism in ("relu", "softmax"):
            session = begin_session(build(args, f"--attn-type {mechanism} {flags}"))
            times = [push(session, segment) for segment in audio]
            cells += [f"{statistics.mean(part):.1f}" for part in (times[:half], times[half:])]
        rows.append([name, *cells])
    head = ["policy", *(f"{m}: ms, {part} half" for m in ("relu", "softmax") for part in ("first", "second"))]
    title = "### What a segment costs under each policy, in an utterance of 20 s (at most 40 tokens)"
    return f"{title}\n\n{benchmark.table(head, rows)}"


def summary(args: argparse.Namespace, name: str, curve: Curve, again: dict[float, float]) -> str:
    """Return a summary of one column in a line."""
    factor = statistics.mean(cost for cost, _, _ in curve.minutes) / args.segment
    last = max(again)
    there = min(len(curve.minutes), max(1, round(last / 60))) - 1
    return (
        f"* {name}: the last minute costs {curve.growth:.2f} times as much as on a stream that starts there (same "
        f"audio, in turns); real-time factor {factor:.3f}; encoding all audio again costs "
        f"{again[last] / curve.minutes[there][0]:.0f} times as much at {last:.0f} s"
    )


def main() -> None:
    args = build_parser().parse_args()
    benchmark.check_tree(args)
    logging.disable(logging.INFO)
    torch.set_num_threads(args.threads)
    title = (
        f"## Streaming, {args.arch}: compute per segment of {args.segment} ms (mean over the minute), most that a "
        "session carries, memory of the process"
    )
    benchmark.publish(f"{title}\n\n{report(args)}\n\n{benchmark.signature()}", args.output)


if __name__ == "__main__":
    main()
