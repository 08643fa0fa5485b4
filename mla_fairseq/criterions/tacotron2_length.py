"""``tacotron2_mla``: fairseq's loss of spectrograms, and the loss of the length predictor."""

from dataclasses import dataclass, field

import torch.nn.functional as F
from fairseq.criterions import register_criterion
from fairseq.criterions.tacotron2_loss import GuidedAttentionLoss, Tacotron2Criterion, Tacotron2CriterionConfig
from fairseq.data.data_utils import lengths_to_mask
from fairseq.logging import metrics
from torch import Tensor, nn

from mla_fairseq.models.checks import without_predictor


@dataclass
class Tacotron2LengthConfig(Tacotron2CriterionConfig):
    """Flags of fairseq's criterion, and of the length predictor."""

    length_loss_weight: float = field(
        default=1.0,
        metadata={
            "help": "weight of the length predictor's loss: L1 + MSE of log(1 + frames) of each symbol, or, where the "
            "data have no durations, |expected length / true length - 1|"
        },
    )
    guided_attention_loss_weight: float = field(
        default=1.0,
        metadata={
            "help": "weight of the guided attention loss; a mean over steps and symbols, it shrinks as texts grow, so "
            "that 1 moves nothing in a short training"
        },
    )


class _Listener:
    """The model, as fairseq's criterion calls it; it records extras, and asks for weights that a loss can train."""

    def __init__(self, model: nn.Module, surrogate_gradient: bool) -> None:
        self.model, self.surrogate_gradient, self.extra = model, surrogate_gradient, {}

    def __call__(self, **inputs: Tensor) -> tuple:
        output = self.model(**inputs, surrogate_gradient=self.surrogate_gradient)
        self.extra = output[2]
        return output

    def __getattr__(self, name: str):
        return getattr(self.model, name)


class _GuidedAttention(GuidedAttentionLoss):
    """fairseq's (DC-TTS, arXiv 1710.08969), weighted.

    A linear mechanism's weights sum to nothing where a query sees nothing: what is missing from one counts as wholly
    off the diagonal, or to see nothing would be the best that attention can do.
    """

    def __init__(self, sigma: float, weight: float) -> None:
        super().__init__(sigma)
        self.weight = weight

    def forward(self, attn: Tensor, src_lens: Tensor, tgt_lens: Tensor, reduction: str = "mean") -> Tensor:
        """Weights (B, S, T), symbols and steps (B,) -> the weighted loss."""
        missing = (1 - attn.sum(1)).clamp_min(0).masked_select(lengths_to_mask(tgt_lens)).sum()
        pairs = 1 if reduction == "sum" else (src_lens * tgt_lens).sum()
        return self.weight * (super().forward(attn, src_lens, tgt_lens, reduction) + missing / pairs)


@register_criterion("tacotron2_mla", dataclass=Tacotron2LengthConfig)
class Tacotron2LengthCriterion(Tacotron2Criterion):
    """L1, MSE, end of speech, guided attention and CTC as in ``tacotron2``, and how far the expected lengths are off.

    Durations learn by L1 + MSE of log(1 + frames) (MLA, arXiv 2304.08453); without durations in the data the sum of
    what is predicted learns to be the number of frames. Logged as ``length_error`` is the mean of
    |expected - true| / true.

    Raises:
        ValueError: a weight below 0.
    """

    def __init__(
        self,
        task,
        sentence_avg: bool,
        use_guided_attention_loss: bool,
        guided_attention_loss_sigma: float,
        bce_pos_weight: float,
        ctc_weight: float,
        length_loss_weight: float,
        guided_attention_loss_weight: float,
    ) -> None:
        super().__init__(
            task, sentence_avg, use_guided_attention_loss, guided_attention_loss_sigma, bce_pos_weight, ctc_weight
        )
        weights = {"length": length_loss_weight, "guided-attention": guided_attention_loss_weight}
        for name, weight in weights.items():
            if weight < 0:
                raise ValueError(f"--{name}-loss-weight must be at least 0, but is {weight}")
        self.length_weight = length_loss_weight
        if use_guided_attention_loss:
            self.guided_attn = _GuidedAttention(guided_attention_loss_sigma, guided_attention_loss_weight)

    def forward(self, model, sample, reduction: str = "mean"):
        """As fairseq's: loss, sample size, and what to log.

        Raises:
            ValueError: a model without a length predictor.
        """
        listener = _Listener(model, surrogate_gradient=self.guided_attn is not None)
        loss, sample_size, log = super().forward(listener, sample, reduction)
        extra = listener.extra
        if "log_durations" not in extra:
            raise ValueError(without_predictor("tacotron2_mla"))
        if self.training and self.length_weight > 0:
            getattr(model, "module", model).decoder.length_rule.batches += 1
        error = (extra["expected_steps"] / sample["target_lengths"] - 1).abs()
        length_loss = self._length_loss(extra, sample, error, reduction)
        loss = loss + self.length_weight * length_loss
        log |= {
            "loss": loss.item(),
            "length_loss": length_loss.item(),
            "length_error": error.sum().item(),
        }
        return loss, sample_size, log

    @staticmethod
    def _length_loss(extra: dict, sample: dict, error: Tensor, reduction: str) -> Tensor:
        if sample.get("durations") is None:
            return error.mean() if reduction == "mean" else error.sum()
        real = lengths_to_mask(sample["net_input"]["src_lengths"])
        expected, true = extra["log_durations"][real], sample["durations"][real].float().log1p()
        return F.l1_loss(expected, true, reduction=reduction) + F.mse_loss(expected, true, reduction=reduction)

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict]) -> None:
        """As fairseq's, with the length's loss and error."""
        super().reduce_metrics(logging_outputs)
        size = sum(log.get("sample_size", 0) for log in logging_outputs)
        total = sum(log.get("length_loss", 0.0) * log.get("sample_size", 0) for log in logging_outputs)
        metrics.log_scalar("length_loss", total / max(size, 1), size, round=4)
        sentences = sum(log.get("nsentences", 0) for log in logging_outputs)
        error = sum(log.get("length_error", 0.0) for log in logging_outputs)
        metrics.log_scalar("length_error", error / max(sentences, 1), sentences, round=4)
