"""``latency_augmented_label_smoothed_cross_entropy_mla``: cross-entropy plus the expected latency."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig
from fairseq.dataclass import ChoiceEnum
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask
from torch import Tensor

from mla_fairseq.criterions.auxiliary import AuxiliaryCriterion
from mla_fairseq.criterions.latency import METRICS, gather, variance
from mla_fairseq.models.checks import NO_MONOTONIC

GATHER = ("weighted_average", "average", "max")


@dataclass
class LatencyAugmentedConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """Flags of fairseq's criterion, and of the latency terms, under the names of fairseq's example."""

    latency_avg_weight: float = field(
        default=0.0,
        metadata={
            "help": "weight of the latency of monotonic attention, which is in encoder states (40 ms) (default: 0)"
        },
    )
    latency_var_weight: float = field(
        default=0.0,
        metadata={
            "help": "weight of the variance of delays over all heads, which is in encoder states squared (default: 0)"
        },
    )
    # fairseq reads the choices from the annotation, which it evaluates
    latency_avg_type: ChoiceEnum(sorted(METRICS)) = field(  # type: ignore[valid-type]
        default="differentiable_average_lagging",
        metadata={"help": "metric of the latency (default: differentiable_average_lagging)"},
    )
    latency_gather_method: ChoiceEnum(GATHER) = field(  # type: ignore[valid-type]
        default="weighted_average",
        metadata={"help": "combination of the delays of all heads into one (default: weighted_average)"},
    )
    latency_update_after: int = field(
        default=0, metadata={"help": "number of updates before the latency terms are added (default: 0)"}
    )


@register_criterion("latency_augmented_label_smoothed_cross_entropy_mla", dataclass=LatencyAugmentedConfig)
class LatencyAugmentedCriterion(AuxiliaryCriterion):
    """Label-smoothed cross-entropy plus the expected latency of monotonic attention (arXiv 1909.12406, equation 13).

    Both latency terms are sums over the sentences of a batch, as cross-entropy is a sum over its tokens. They do not
    count the first ``--ignore-prefix-size`` tokens.

    Raises:
        ValueError: a weight below 0.
    """

    averaged: ClassVar[dict[str, int]] = {"latency": 3, "delays_var": 3}

    def __init__(
        self,
        task: FairseqTask,
        sentence_avg: bool,
        label_smoothing: float,
        ignore_prefix_size: int,
        report_accuracy: bool,
        latency_avg_weight: float,
        latency_var_weight: float,
        latency_avg_type: str,
        latency_gather_method: str,
        latency_update_after: int,
    ) -> None:
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        if latency_avg_weight < 0 or latency_var_weight < 0:
            raise ValueError(
                f"--latency-avg-weight and --latency-var-weight must be at least 0, but are {latency_avg_weight} and "
                f"{latency_var_weight}"
            )
        self.average_weight, self.variance_weight = latency_avg_weight, latency_var_weight
        self.metric = METRICS[str(latency_avg_type)]
        self.gather_method = str(latency_gather_method)
        self.update_after = latency_update_after

    def auxiliary(
        self, model: BaseFairseqModel, extra: dict[str, Any], sample: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return both latency terms; log the latency (encoder states) and the variance of delays.

        Raises:
            ValueError: a model without monotonic attention.
        """
        latency, spread = (terms.sum() for terms in self.latency(extra, sample))
        added = self.average_weight * latency + self.variance_weight * spread
        if model.encoder.num_updates < self.update_after:  # fairseq gives the number of updates to models only
            added = torch.zeros_like(added)
        return added, {"latency": latency, "delays_var": spread}

    def latency(self, extra: dict[str, Any], sample: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the latency of each sentence in encoder states, (B,), and the variance of its heads' delays, (B,).

        Raises:
            ValueError: a model without monotonic attention.
        """
        if "delays" not in extra:
            raise ValueError(NO_MONOTONIC)
        mask = sample["target"][:, self.ignore_prefix_size :].ne(self.padding_idx)
        delays = extra["delays"][..., self.ignore_prefix_size :].float()
        latency = self.metric(gather(delays, self.gather_method), extra["source_lengths"].to(delays), mask)
        return latency, variance(delays, mask)
