"""``tacotron2_mla``: fairseq's loss of spectrograms plus the loss of the length predictor."""

from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from fairseq.criterions import register_criterion
from fairseq.criterions.tacotron2_loss import GuidedAttentionLoss, Tacotron2Criterion, Tacotron2CriterionConfig
from fairseq.data.data_utils import lengths_to_mask
from fairseq.logging import metrics
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask
from torch import Tensor

from mla_fairseq.models.checks import NO_PREDICTOR
from mla_fairseq.models.distributed import unwrapped

MEANS = ("loss", "l1_loss", "mse_loss", "eos_loss", "attn_loss", "ctc_loss", "length_loss")
"""What the log has of a batch as a mean, times the batch's sample size: fairseq adds the logs of all processes."""


@dataclass
class Tacotron2LengthConfig(Tacotron2CriterionConfig):
    """Flags of fairseq's criterion, and of the length predictor."""

    length_loss_weight: float = field(
        default=1.0,
        metadata={
            "help": "weight of the length predictor's loss, which is L1 + MSE of log(1 + frames) of each symbol or, "
            "where the data have no durations, |expected length / true length - 1| (default: 1)"
        },
    )
    guided_attention_loss_weight: float = field(
        default=1.0,
        metadata={
            "help": "weight of the guided attention loss; a mean over steps and symbols, it is small for long texts, "
            "and a short training needs a weight above 1 (default: 1)"
        },
    )


class _Listener:
    """The model as fairseq's criterion calls it, with its extras recorded and weights that a loss can train."""

    def __init__(self, model: BaseFairseqModel, surrogate_gradient: bool) -> None:
        self.model, self.surrogate_gradient = model, surrogate_gradient
        self.extra: dict[str, Any] = {}

    def __call__(self, **inputs: Tensor) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Return what the model returns, and keep its extras."""
        output = self.model(**inputs, surrogate_gradient=self.surrogate_gradient)
        self.extra = output[2]
        return output

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the model, which is all else that fairseq's criterion asks for."""
        return getattr(self.model, name)


class _GuidedAttention(GuidedAttentionLoss):
    """fairseq's guided attention loss (DC-TTS, arXiv 1710.08969), with a weight.

    A query of a linear mechanism may see no key, and its weights then sum to less than one. The missing part counts as
    fully off the diagonal; otherwise the loss would be least where attention sees nothing.
    """

    def __init__(self, sigma: float, weight: float) -> None:
        super().__init__(sigma)
        self.weight = weight

    def forward(self, attn: Tensor, src_lens: Tensor, tgt_lens: Tensor, reduction: str = "mean") -> Tensor:
        """Return the weighted loss of weights (B, S, T) with numbers of symbols and steps, (B,) each."""
        missing = (1 - attn.sum(1)).clamp_min(0).masked_select(lengths_to_mask(tgt_lens)).sum()
        pairs = 1 if reduction == "sum" else (src_lens * tgt_lens).sum()
        return self.weight * (super().forward(attn, src_lens, tgt_lens, reduction) + missing / pairs)


@register_criterion("tacotron2_mla", dataclass=Tacotron2LengthConfig)
class Tacotron2LengthCriterion(Tacotron2Criterion):
    """The losses of ``tacotron2`` (L1, MSE, end of speech, guided attention, CTC) plus the length predictor's loss.

    The length loss is L1 + MSE of log(1 + frames) of each symbol (MLA, arXiv 2304.08453). Where the data have no
    durations, it trains their sum to be the number of frames. ``length_error`` in the log is the mean of
    |expected - true| / true.

    Raises:
        ValueError: a weight below 0.
    """

    def __init__(
        self,
        task: FairseqTask,
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

    def forward(
        self, model: BaseFairseqModel, sample: dict[str, Any], reduction: str = "mean"
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Return the loss, the sample size, and what to log, as fairseq's criterion does.

        Raises:
            ValueError: a model without a length predictor.
        """
        listener = _Listener(model, surrogate_gradient=self.guided_attn is not None)
        loss, sample_size, log = super().forward(listener, sample, reduction)
        extra = listener.extra
        if "log_durations" not in extra:
            raise ValueError(NO_PREDICTOR)
        if self.training and self.length_weight > 0:
            unwrapped(model).decoder.length_rule.batches += 1  # decoding refuses a predictor that was never trained
        error = (extra["expected_steps"] / sample["target_lengths"] - 1).abs()
        length_loss = self._length_loss(extra, sample, error, reduction)
        loss = loss + self.length_weight * length_loss
        log |= {
            "loss": loss.item(),
            "length_loss": length_loss.item(),
            "length_error": error.sum().item(),
        }
        return loss, sample_size, log | {name: log[name] * sample_size for name in MEANS}

    @staticmethod
    def _length_loss(extra: dict[str, Any], sample: dict[str, Any], error: Tensor, reduction: str) -> Tensor:
        """Return the loss of durations; without durations, that of ``error`` (B,), the relative error of lengths."""
        if sample.get("durations") is None:
            return error.mean() if reduction == "mean" else error.sum()
        real = lengths_to_mask(sample["net_input"]["src_lengths"])
        expected, true = extra["log_durations"][real], sample["durations"][real].float().log1p()
        return F.l1_loss(expected, true, reduction=reduction) + F.mse_loss(expected, true, reduction=reduction)

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Log fairseq's metrics, and the loss and error of lengths."""
        size = sum(log.get("sample_size", 0) for log in logging_outputs)
        means = {name: sum(log.get(name, 0.0) for log in logging_outputs) / max(size, 1) for name in MEANS}
        super().reduce_metrics([means | {"sample_size": size}])
        metrics.log_scalar("length_loss", means["length_loss"], size, round=4)
        sentences = sum(log.get("nsentences", 0) for log in logging_outputs)
        error = sum(log.get("length_error", 0.0) for log in logging_outputs)
        metrics.log_scalar("length_error", error / max(sentences, 1), sentences, round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Return that logs are sums, which fairseq adds up; it would gather other logs in the memory of a GPU."""
        return True
