"""Decoding of spectrograms from texts, step by step: each utterance of a batch stops at its own end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Limits:
    """When an utterance ends.

    Attributes:
        threshold: it ends at the first step whose probability of the end is above this.
        max_steps: the most decoder steps of any utterance.
        max_ratio: the most steps per step of the length that the model expects; 0: no such limit. Without an expected
            length ``max_steps`` alone holds.
        slack: steps allowed beyond ``max_ratio``, because short expected lengths are uncertain.

    Raises:
        ValueError: a threshold outside 0 to 1, no steps, or a ratio below 0.
    """

    threshold: float = 0.5
    max_steps: int = 1200
    max_ratio: float = 2.0
    slack: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"--eos-prob-threshold must be between 0 and 1, but is {self.threshold}")
        if self.max_steps < 1:
            raise ValueError(f"the largest number of decoder steps must be at least 1, but is {self.max_steps}")
        if self.max_ratio < 0:
            raise ValueError(f"--max-length-ratio must be at least 0, but is {self.max_ratio}")

    def steps(self, expected: Tensor | None, batch: int) -> Tensor:
        """Return the most steps of each utterance (B,), given its expected steps (B,)."""
        if expected is None or self.max_ratio == 0:
            return torch.full((batch,), self.max_steps)
        own = (expected.double() * self.max_ratio).ceil().long() + self.slack
        return own.clamp_max(self.max_steps).cpu()


@dataclass
class Utterance:
    """What was decoded from one text.

    Attributes:
        frames: (T, n F), n frames for each of T steps, before the post-net.
        eos_prob: (T,), probabilities of the end.
        attn: (S, T), cross-attention weights, or ``None``.
        ended: whether the model ended it; otherwise a limit did.
    """

    frames: Tensor
    eos_prob: Tensor
    attn: Tensor | None
    ended: bool


@torch.no_grad()
def decode(model: nn.Module, net_input: dict, limits: Limits, need_attn: bool = False) -> list[Utterance]:
    """Decode a batch of texts with a state, from which utterances that have ended are removed.

    Args:
        model: ``tts_transformer_mla`` or a model with its interface, in evaluation mode.
        net_input: ``src_tokens`` (B, S), ``src_lengths`` (B,), and ``speaker`` (B, 1) or ``None``.
    """
    encoder_out = model.encoder(**net_input)
    batch = len(net_input["src_tokens"])
    limit = limits.steps(model.decoder.expect_length(encoder_out), batch)
    pieces: list[list[tuple[Tensor, Tensor, Tensor | None]]] = [[] for _ in range(batch)]
    ended = [False] * batch
    rows = torch.arange(batch)
    state, step, frame = {}, 0, encoder_out["encoder_out"][0].new_zeros(batch, 1, model.decoder.out_dim)
    steps: list[tuple[Tensor, Tensor, Tensor | None]] = []
    while len(rows):
        _, end, extra = model.decoder(
            frame, encoder_out, incremental_state=state, speaker=net_input.get("speaker"), need_attn=need_attn
        )
        frame, probability, step = extra["feature_out"], end.float().sigmoid().squeeze(-1), step + 1
        steps.append((frame, probability, extra["attn"]))
        over = (probability.squeeze(1) > limits.threshold).cpu()
        stop = over | (limit[rows] <= step)
        if not bool(stop.any()):
            continue
        for place, row in enumerate(rows.tolist()):
            pieces[row].append(_join(steps, place))
            ended[row] = bool(over[place])
        stay = (~stop).nonzero().squeeze(1)
        rows, steps = rows[stay], []
        order = stay.to(frame.device)
        frame = frame[order]
        model.decoder.reorder_incremental_state_scripting(state, order)
        encoder_out = model.encoder.reorder_encoder_out(encoder_out, order)
        if net_input.get("speaker") is not None:
            net_input = net_input | {"speaker": net_input["speaker"][order]}
    return [_utterance(parts, how) for parts, how in zip(pieces, ended, strict=True)]


def refine(model: nn.Module, utterances: list[Utterance]) -> list[Tensor]:
    """Return the frames (n T, F) of each utterance after the post-net."""
    padded = pad_sequence([utterance.frames for utterance in utterances], batch_first=True)
    lengths = torch.tensor([len(utterance.frames) for utterance in utterances], device=padded.device)
    mask = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
    with torch.no_grad():
        refined = model.decoder.refine(padded, mask)
    bins = padded.shape[2] // model.decoder.n_frames_per_step
    return [row[:length].reshape(-1, bins) for row, length in zip(refined, lengths.tolist(), strict=True)]


class Synthesizer:
    """fairseq's interface of a speech generator: ``generate`` returns a dict for each text.

    Args:
        models: one model; ensembles are not supported.
        vocoder: log-mel frames (T, F) -> samples (time,), or ``None``.
        limits: when an utterance ends.
        mean, std: (F,), the normalisation of the training data; ``None``: none.
        teacher_forcing: decode each step from the recorded frames before it.
    """

    def __init__(
        self,
        models: list[nn.Module],
        vocoder: Callable[[Tensor], Tensor] | None,
        limits: Limits,
        mean: Tensor | None = None,
        std: Tensor | None = None,
        teacher_forcing: bool = False,
    ) -> None:
        self.model, self.vocoder, self.limits = models[0], vocoder, limits
        self.mean, self.std, self.teacher_forcing = mean, std, teacher_forcing

    def generate(self, model: nn.Module, sample: dict, has_targ: bool = False, need_attn: bool = True) -> list[dict]:
        """Synthesise a batch.

        Returns a dict for each text: ``feature`` (T, F), not normalised, ``waveform`` (time,), ``eos_prob`` (T,),
        ``attn`` (S, T) and ``alignment`` (T,), where T are frames, and whether the model ``ended`` it; with
        ``has_targ`` also ``targ_feature`` and ``targ_waveform``.

        Raises:
            ValueError: a spectrogram is not finite.
        """
        model.eval()
        net_input = {key: sample["net_input"][key] for key in ("src_tokens", "src_lengths")}
        net_input["speaker"] = sample.get("speaker")
        if self.teacher_forcing:
            utterances, features = self._forced(model, sample, net_input)
        else:
            utterances = decode(model, net_input, self.limits, need_attn)
            features = refine(model, utterances)
        lengths = sample["net_input"]["src_lengths"].tolist()
        found = [
            self._finish(utterance, frames, model.decoder.n_frames_per_step, symbols)
            for utterance, frames, symbols in zip(utterances, features, lengths, strict=True)
        ]
        if has_targ:
            for result, true in zip(found, self.targets(model, sample), strict=True):
                result |= {"targ_feature": true, "targ_waveform": self.speak(true)}
        return found

    def denormalize(self, frames: Tensor) -> Tensor:
        """Undo the normalisation of log-mel frames (T, F)."""
        return frames if self.mean is None else frames * self.std.to(frames) + self.mean.to(frames)

    def speak(self, frames: Tensor) -> Tensor | None:
        """Return the samples (time,) of log-mel frames (T, F)."""
        return None if self.vocoder is None else self.vocoder(frames)

    def _finish(self, utterance: Utterance, frames: Tensor, per_step: int, symbols: int) -> dict:
        feature = self.denormalize(frames)
        if not bool(feature.isfinite().all()):
            raise ValueError(
                "the spectrogram is not finite: the training of this model diverged, use another checkpoint"
            )
        result = {
            "feature": feature,
            "waveform": self.speak(feature),
            "eos_prob": utterance.eos_prob.repeat_interleave(per_step),
            "attn": None,
            "alignment": None,
            "ended": utterance.ended,
        }
        if utterance.attn is not None:
            result["attn"] = utterance.attn[:symbols].repeat_interleave(per_step, dim=1)
            result["alignment"] = result["attn"].argmax(0)
        return result

    @staticmethod
    @torch.no_grad()
    def _forced(model: nn.Module, sample: dict, net_input: dict) -> tuple[list[Utterance], list[Tensor]]:
        lengths, bins = sample["target_lengths"], model.decoder.out_dim // model.decoder.n_frames_per_step
        refined, end, extra = model.decoder(
            sample["net_input"]["prev_output_tokens"], model.encoder(**net_input), target_lengths=lengths
        )
        rows = list(enumerate(lengths.tolist()))
        utterances = [
            Utterance(extra["feature_out"][i, :n], end[i, :n, 0].sigmoid(), extra["attn"][i, :, :n], True)
            for i, n in rows
        ]
        return utterances, [refined[i, :n].reshape(-1, bins) for i, n in rows]

    def targets(self, model: nn.Module, sample: dict) -> Iterator[Tensor]:
        """Yield the recorded log-mel frames (T, F) of each utterance, not normalised."""
        bins = model.decoder.out_dim // model.decoder.n_frames_per_step
        for frames, length in zip(sample["target"], sample["target_lengths"].tolist(), strict=True):
            yield self.denormalize(frames[:length].reshape(-1, bins))


def _join(steps: list[tuple[Tensor, Tensor, Tensor | None]], place: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Join the steps of the utterance at a place: frames (T, n F), ends (T,), weights (S, T)."""
    weights = None if steps[0][2] is None else torch.cat([attn[place] for *_, attn in steps], dim=1)
    return torch.cat([frames[place] for frames, *_ in steps]), torch.cat([end[place] for _, end, _ in steps]), weights


def _utterance(parts: list[tuple[Tensor, Tensor, Tensor | None]], ended: bool) -> Utterance:
    frames, ends, weights = zip(*parts, strict=True)
    return Utterance(
        torch.cat(frames), torch.cat(ends), None if weights[0] is None else torch.cat(weights, dim=1), ended
    )
