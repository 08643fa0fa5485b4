"""``label_smoothed_cross_entropy_mla``: cross-entropy plus the loss of the length predictor."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask
from torch import Tensor

from mla_fairseq.criterions.auxiliary import AuxiliaryCriterion
from mla_fairseq.models.checks import without_predictor


@dataclass
class LengthAwareConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """Flags of fairseq's criterion, and of the length predictor."""

    length_loss_weight: float = field(
        default=1.0,
        metadata={"help": "weight of the length predictor's loss, |log(expected length / true length)| (default: 1)"},
    )


@register_criterion("label_smoothed_cross_entropy_mla", dataclass=LengthAwareConfig)
class LengthAwareCriterion(AuxiliaryCriterion):
    """Label-smoothed cross-entropy plus the length loss |log(expected length / true length)|.

    The length loss is a sum over the sentences of a batch, as cross-entropy is a sum over its tokens. ``length_error``
    in the log is the mean of |expected - true| / true.

    Raises:
        ValueError: a weight below 0.
    """

    averaged: ClassVar[dict[str, int]] = {"length_error": 4}

    def __init__(
        self,
        task: FairseqTask,
        sentence_avg: bool,
        label_smoothing: float,
        ignore_prefix_size: int,
        report_accuracy: bool,
        length_loss_weight: float,
    ) -> None:
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        if length_loss_weight < 0:
            raise ValueError(f"--length-loss-weight must be at least 0, but is {length_loss_weight}")
        self.length_weight = length_loss_weight

    def auxiliary(
        self, model: BaseFairseqModel, extra: dict[str, Any], sample: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted length loss; log the relative error of the length.

        Raises:
            ValueError: a model without a length predictor.
        """
        if "length_log_ratio" not in extra:
            raise ValueError(without_predictor("label_smoothed_cross_entropy_mla"))
        if self.training and self.length_weight > 0:
            model.decoder.length_rule.batches += 1  # decoding refuses a predictor that was never trained
        true = sample["target"].ne(self.padding_idx).sum(1) - model.decoder.prefix_size
        error = extra["length_log_ratio"] + extra["source_lengths"].log() - true.log()  # log of expected over true
        return self.length_weight * error.abs().sum(), {"length_error": (error.exp() - 1).abs().sum()}
