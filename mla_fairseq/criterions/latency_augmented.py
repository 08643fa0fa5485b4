"""``latency_augmented_label_smoothed_cross_entropy_mla``: cross-entropy, and the price of being late."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig
from fairseq.dataclass import ChoiceEnum
from torch import Tensor, nn

from mla_fairseq.criterions.auxiliary import AuxiliaryCriterion
from mla_fairseq.criterions.latency import METRICS, gather, variance

GATHER = ("weighted_average", "average", "max")


@dataclass
class LatencyAugmentedConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """Flags of fairseq's criterion, and of the latency terms, under the names of fairseq's example."""

    latency_avg_weight: float = field(
        default=0.0, metadata={"help": "weight of the latency of monotonic attention, in encoder states (40 ms)"}
    )
    latency_var_weight: float = field(
        default=0.0, metadata={"help": "weight of the variance of delays over all heads, in states squared"}
    )
    latency_avg_type: ChoiceEnum(sorted(METRICS)) = field(
        default="differentiable_average_lagging", metadata={"help": "metric of the latency"}
    )
    latency_gather_method: ChoiceEnum(GATHER) = field(
        default="weighted_average", metadata={"help": "how the delays of all heads become one"}
    )
    latency_update_after: int = field(
        default=0, metadata={"help": "updates without the latency terms, in which the model learns to translate"}
    )


@register_criterion("latency_augmented_label_smoothed_cross_entropy_mla", dataclass=LatencyAugmentedConfig)
class LatencyAugmentedCriterion(AuxiliaryCriterion):
    """Label-smoothed cross-entropy with the expected latency of monotonic attention (arXiv 1909.12406, equation 13).

    Both terms are sums over the sentences of a batch, as cross-entropy is a sum over its tokens.

    Raises:
        ValueError: a weight below 0.
    """

    averaged: ClassVar[dict[str, int]] = {"latency": 3, "delays_var": 3}

    def __init__(
        self,
        task,
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

    def auxiliary(self, model: nn.Module, extra: dict, sample: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Both latency terms, and what they are made of: the mean latency (encoder states) and variance.

        Raises:
            ValueError: a model without monotonic attention.
        """
        latency, spread = (terms.sum() for terms in self.latency(extra, sample))
        added = self.average_weight * latency + self.variance_weight * spread
        if model.encoder.num_updates < self.update_after:  # fairseq tells updates to models alone
            added = torch.zeros_like(added)
        return added, {"latency": latency, "delays_var": spread}

    def latency(self, extra: dict, sample: dict) -> tuple[Tensor, Tensor]:
        """The latency of each sentence in encoder states, and the variance of its heads' delays, (B,) both."""
        if "delays" not in extra:
            raise ValueError(
                "the latency criterion needs a model with monotonic attention: give --simul-type other than waitk, or "
                "take --criterion label_smoothed_cross_entropy"
            )
        mask = sample["target"].ne(self.padding_idx)
        delays = extra["delays"].float()
        latency = self.metric(gather(delays, self.gather_method), extra["source_lengths"].to(delays), mask)
        return latency, variance(delays, mask)
