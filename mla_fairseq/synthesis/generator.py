"""Decode spectrograms from texts step by step; each utterance of a batch stops at its own end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mla_fairseq.models.tts_transformer_mla import TTSTransformerMLAModel
from mla_fairseq.synthesis.limits import Limits

Steps = tuple[Tensor, Tensor, Tensor | None]
"""Frames, probabilities of the end, and attention weights (or ``None``) of one or more decoder steps."""


@dataclass
class Utterance:
    """The spectrogram decoded from one text.

    Attributes:
        frames: (T, n F), n frames for each of T steps, before the post-net.
        eos_prob: (T,), probabilities of the end.
        attn: (S, T), cross-attention weights over the S symbols, or ``None``.
        ended: whether the model ended the utterance; if not, a limit did.
    """

    frames: Tensor
    eos_prob: Tensor
    attn: Tensor | None
    ended: bool


@torch.no_grad()
def decode(model: TTSTransformerMLAModel, net_input: dict, limits: Limits, need_attn: bool = False) -> list[Utterance]:
    """Decode a batch of texts, each step from the state of the steps before it.

    Utterances that have ended are removed from the batch.

    Args:
        model: the model, in evaluation mode.
        net_input: ``src_tokens`` (B, S), ``src_lengths`` (B,), and ``speaker`` (B, 1) or ``None``.
        limits: when an utterance ends.
        need_attn: return cross-attention weights as well.
    """
    encoder_out = model.encoder(**net_input)
    batch = len(net_input["src_tokens"])
    expected = model.decoder.expect_length(encoder_out)
    limit = torch.tensor([limits.steps(steps) for steps in ([None] * batch if expected is None else expected.tolist())])
    stretches: list[list[Steps]] = [[] for _ in range(batch)]
    ended = [False] * batch
    rows = torch.arange(batch)  # the utterance in each row of the shrinking batch
    state: dict[str, dict[str, Tensor]] = {}
    step, frame = 0, encoder_out["encoder_out"][0].new_zeros(batch, 1, model.decoder.out_dim)
    steps: list[Steps] = []  # since the batch last became smaller
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
        for row, utterance in enumerate(rows.tolist()):
            stretches[utterance].append(_join(steps, row))
            ended[utterance] = bool(over[row])
        stay = (~stop).nonzero().squeeze(1)
        rows, steps = rows[stay], []
        order = stay.to(frame.device)
        frame = frame[order]
        model.decoder.reorder_incremental_state_scripting(state, order)
        encoder_out = model.encoder.reorder_encoder_out(encoder_out, order)
        if net_input.get("speaker") is not None:
            net_input = net_input | {"speaker": net_input["speaker"][order]}
    return [_utterance(parts, by_model) for parts, by_model in zip(stretches, ended, strict=True)]


def refine(model: TTSTransformerMLAModel, utterances: list[Utterance]) -> list[Tensor]:
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
        vocoder: converts log-mel frames (T, F) to samples (time,); ``None``: no waveforms.
        limits: when an utterance ends.
        mean, std: (F,), the normalisation of the training data; ``None``: not normalised.
        teacher_forcing: decode each step from the recorded frames before it.
    """

    def __init__(
        self,
        models: list[TTSTransformerMLAModel],
        vocoder: Callable[[Tensor], Tensor] | None,
        limits: Limits,
        mean: Tensor | None = None,
        std: Tensor | None = None,
        teacher_forcing: bool = False,
    ) -> None:
        self.model, self.vocoder, self.limits = models[0], vocoder, limits
        self.mean, self.std, self.teacher_forcing = mean, std, teacher_forcing

    def generate(
        self, model: TTSTransformerMLAModel, sample: dict, has_targ: bool = False, need_attn: bool = True
    ) -> list[dict]:
        """Synthesise a batch.

        Returns:
            A dict for each text with ``feature`` (T, F), not normalised, ``waveform`` (time,), ``eos_prob`` (T,),
            ``attn`` (S, T), ``alignment`` (T,), the symbol with the largest weight, and ``ended``, whether the model
            ended the utterance. T counts frames. With ``has_targ`` also ``targ_feature`` and ``targ_waveform``.

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
        if self.mean is None or self.std is None:
            return frames
        return frames * self.std.to(frames) + self.mean.to(frames)

    def speak(self, frames: Tensor) -> Tensor | None:
        """Return the samples (time,) of log-mel frames (T, F)."""
        return None if self.vocoder is None else self.vocoder(frames)

    def _finish(self, utterance: Utterance, frames: Tensor, per_step: int, symbols: int) -> dict:
        feature = self.denormalize(frames)
        if not bool(feature.isfinite().all()):
            raise ValueError(
                "the spectrogram is not finite, because the training of this model diverged: use another checkpoint"
            )
        attn = None if utterance.attn is None else utterance.attn[:symbols].repeat_interleave(per_step, dim=1)
        return {
            "feature": feature,
            "waveform": self.speak(feature),
            "eos_prob": utterance.eos_prob.repeat_interleave(per_step),
            "attn": attn,
            "alignment": None if attn is None else attn.argmax(0),
            "ended": utterance.ended,
        }

    @staticmethod
    @torch.no_grad()
    def _forced(model: TTSTransformerMLAModel, sample: dict, net_input: dict) -> tuple[list[Utterance], list[Tensor]]:
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

    def targets(self, model: TTSTransformerMLAModel, sample: dict) -> Iterator[Tensor]:
        """Yield the recorded log-mel frames (T, F) of each utterance, not normalised."""
        bins = model.decoder.out_dim // model.decoder.n_frames_per_step
        for frames, length in zip(sample["target"], sample["target_lengths"].tolist(), strict=True):
            yield self.denormalize(frames[:length].reshape(-1, bins))


def _join(steps: list[Steps], row: int) -> Steps:
    """Join the steps of the utterance in a row: frames (T, n F), probabilities (T,), weights (S, T)."""
    frames, ends, weights = zip(*steps, strict=True)
    attn = None if weights[0] is None else torch.cat([weight[row] for weight in weights], dim=1)
    return torch.cat([frame[row] for frame in frames]), torch.cat([end[row] for end in ends]), attn


def _utterance(parts: list[Steps], ended: bool) -> Utterance:
    frames, ends, weights = zip(*parts, strict=True)
    attn = None if weights[0] is None else torch.cat(weights, dim=1)
    return Utterance(torch.cat(frames), torch.cat(ends), attn, ended)
