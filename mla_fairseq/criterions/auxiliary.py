"""Cross-entropy with another loss term, which a subclass computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics
from fairseq.models import BaseFairseqModel
from torch import Tensor

from mla_fairseq.models.distributed import unwrapped


class AuxiliaryCriterion(LabelSmoothedCrossEntropyCriterion, ABC):
    """fairseq's label-smoothed cross-entropy plus the term that ``auxiliary`` returns.

    Cross-entropy is a sum over the tokens of a batch, the added term a sum over its sentences. What ``auxiliary`` logs
    is a sum over sentences too, and is shown as their mean.
    """

    averaged: ClassVar[dict[str, int]] = {}
    """Names of what is logged, and their digits."""

    @abstractmethod
    def auxiliary(
        self, model: BaseFairseqModel, extra: dict[str, Any], sample: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the term to add, a scalar, and what to log.

        Args:
            model: the model, without a wrapper for several processes.
            extra: what the model returned after its scores.
            sample: the batch.
        """

    def forward(
        self, model: BaseFairseqModel, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Return the loss, the sample size, and what to log, as fairseq's criterion does."""
        net_output = model(**sample["net_input"])
        loss, nll_loss = self.compute_loss(model, net_output, sample, reduce=reduce)
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        added, more = self.auxiliary(unwrapped(model), net_output[1], sample)
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
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Log fairseq's metrics, and the means of what ``auxiliary`` logged."""
        super().reduce_metrics(logging_outputs)
        sentences = sum(log.get("nsentences", 0) for log in logging_outputs)
        for name, digits in cls.averaged.items():
            total = sum(float(log.get(name, 0)) for log in logging_outputs)
            metrics.log_scalar(name, total / max(sentences, 1), sentences, round=digits)
