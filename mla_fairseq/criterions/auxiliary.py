"""Cross-entropy with one more term, which a subclass computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics
from torch import Tensor, nn


class AuxiliaryCriterion(LabelSmoothedCrossEntropyCriterion, ABC):
    """fairseq's label-smoothed cross-entropy, and what ``auxiliary`` adds.

    Both are sums, over the tokens and over the sentences of a batch. What ``auxiliary`` logs is a sum over sentences
    too, and is shown as their mean under the names in ``averaged``, with so many digits.
    """

    averaged: ClassVar[dict[str, int]] = {}

    @abstractmethod
    def auxiliary(self, model: nn.Module, extra: dict, sample: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """The term to add, and what to log, from what the model said beside its scores."""

    def forward(self, model, sample, reduce: bool = True):
        """As fairseq's: loss, sample size, and what to log."""
        net_output = model(**sample["net_input"])
        loss, nll_loss = self.compute_loss(model, net_output, sample, reduce=reduce)
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        added, more = self.auxiliary(getattr(model, "module", model), net_output[1], sample)
        loss = loss + added
        log = {
            "loss": loss.data,
            "nll_loss": nll_loss.data,
            "ntokens": sample["ntokens"],
            "nsentences": sample["target"].size(0),
            "sample_size": sample_size,
        }
        if self.report_accuracy:
            right, total = self.compute_accuracy(model, net_output, sample)
            log |= {"n_correct": right.item(), "total": total.item()}
        return loss, sample_size, log | {name: value.data for name, value in more.items()}

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict]) -> None:
        """As fairseq's, with the means of what ``auxiliary`` logged."""
        super().reduce_metrics(logging_outputs)
        sentences = sum(log.get("nsentences", 0) for log in logging_outputs)
        for name, digits in cls.averaged.items():
            total = sum(float(log.get(name, 0)) for log in logging_outputs)
            metrics.log_scalar(name, total / max(sentences, 1), sentences, round=digits)
