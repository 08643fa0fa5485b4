"""``label_smoothed_cross_entropy_mla``: cross-entropy plus a term for each output that the model has beside its scores.

A length predictor adds the length loss, monotonic attention the latency terms, a boundary output the boundary loss,
CTC outputs the CTC losses.
``latency_augmented_label_smoothed_cross_entropy_mla`` is the same criterion under the name of older commands.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask
from torch import Tensor

from mla_fairseq.criterions.boundary import boundary_loss
from mla_fairseq.criterions.ctc import count_errors, ctc_loss, ctc_targets
from mla_fairseq.criterions.latency import METRICS, gather, variance
from mla_fairseq.models.checks import NO_MONOTONIC
from mla_fairseq.models.ctc import SOURCE
from mla_fairseq.models.distributed import unwrapped

GATHER = ("weighted_average", "average", "max")
AVERAGED = {"length_error": 4, "latency": 3, "delays_var": 3, "boundary_loss": 4}
"""Names of what the terms log, a sum over sentences each, and the digits of their means."""

RATIOS = {
    "ctc_loss": ("ctc_symbols", 1 / math.log(2)),  # bits per character
    "ctc_target_loss": ("ctc_target_symbols", 1 / math.log(2)),  # bits per token
    "wer": ("reference_words", 100.0),  # per cent
    "loss_gap": ("gap_tokens", 1 / math.log(2)),  # bits per token
}
"""Names of what is logged as a ratio of sums: the divisor, and the factor."""

Term = tuple[Tensor, dict[str, Tensor]]
"""What is added to the loss of a batch, and what is logged."""


@dataclass
class OptionalTermsConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """Flags of fairseq's criterion, of the length predictor, and of the latency terms as in fairseq's example."""

    length_loss_weight: float = field(
        default=1.0,
        metadata={"help": "weight of the length predictor's loss, |log(expected length / true length)| (default: 1)"},
    )
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
    ctc_weight: float = field(
        default=0.0,
        metadata={
            "help": "weight of the CTC loss on the text of --ctc-text; 0.3 is a good weight (default: 0, no CTC output)"
        },
    )


@register_criterion("label_smoothed_cross_entropy_mla", dataclass=OptionalTermsConfig)
class OptionalTermsCriterion(LabelSmoothedCrossEntropyCriterion):
    """Label-smoothed cross-entropy plus optional terms.

    The length loss is |log(expected length / true length)|; ``length_error`` in the log is the mean of
    |expected - true| / true. The latency terms are those of arXiv 1909.12406, equation 13; they do not count the first
    ``--ignore-prefix-size`` tokens. These are sums over the sentences of a batch, as cross-entropy is a sum over its
    tokens. The boundary loss is a mean over encoder states, times the tokens of the batch; it is for batches of
    ``--context-ratio``, which have ``speech`` and ``speech_end``. The CTC losses are sums over sentences.

    In validation it also logs ``wer``, the word error rate of the transcripts that CTC gives, and ``loss_gap``: by how
    much the loss is higher if each sentence gets the audio of the next one in its batch.

    Raises:
        ValueError: a weight below 0.
    """

    def __init__(
        self,
        task: FairseqTask,
        sentence_avg: bool,
        label_smoothing: float,
        ignore_prefix_size: int,
        report_accuracy: bool,
        length_loss_weight: float,
        latency_avg_weight: float = 0.0,
        latency_var_weight: float = 0.0,
        latency_avg_type: str = "differentiable_average_lagging",
        latency_gather_method: str = "weighted_average",
        latency_update_after: int = 0,
        ctc_weight: float = 0.0,
    ) -> None:
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        weights = {
            "length-loss": length_loss_weight,
            "latency-avg": latency_avg_weight,
            "latency-var": latency_var_weight,
            "ctc": ctc_weight,
        }
        for name, weight in weights.items():
            if not weight >= 0:  # true for NaN
                raise ValueError(f"--{name}-weight must be at least 0, but is {weight}")
        self.length_weight = length_loss_weight
        self.average_weight, self.variance_weight = latency_avg_weight, latency_var_weight
        self.metric = METRICS[str(latency_avg_type)]
        self.gather_method = str(latency_gather_method)
        self.update_after = latency_update_after

    def forward(
        self, model: BaseFairseqModel, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Return the loss, the sample size, and what to log, as fairseq's criterion does."""
        net_output = model(**sample["net_input"])
        loss, nll_loss = self.compute_loss(model, net_output, sample, reduce=reduce)
        more: dict[str, Tensor] = {}
        for added, logged in self.terms(unwrapped(model), net_output[1], sample):
            loss, more = loss + added, more | logged
        sample_size = self._sample_size(sample)
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
        if not self.training:
            more |= self._validation(unwrapped(model), net_output[1], sample, nll_loss)
        return loss, sample_size, log | {name: value.data for name, value in more.items()}

    def terms(self, model: BaseFairseqModel, extra: dict[str, Any], sample: dict[str, Any]) -> list[Term]:
        """Return the terms of the outputs that the model has.

        Args:
            model: the model, without a wrapper for several processes.
            extra: what the model returned after its scores.
            sample: the batch.

        Raises:
            ValueError: latency terms for a model without monotonic attention.
        """
        found = []
        if "length_log_ratio" in extra:
            found.append(self._length(model, extra, sample))
        if "delays" in extra:
            found.append(self._latency(model, extra, sample))
        elif self.average_weight or self.variance_weight:
            raise ValueError(NO_MONOTONIC)
        if "boundary" in extra.get("encoder_out", {}) and "speech" in sample:
            found.append(self._boundary(model, extra["encoder_out"], sample))
        if getattr(model.encoder, "ctc", None) is not None:
            found += [self._ctc(model, extra["encoder_out"], sample, text) for text in model.encoder.ctc.heads]
        return found

    def _length(self, model: BaseFairseqModel, extra: dict[str, Any], sample: dict[str, Any]) -> Term:
        """Return the length loss; log the relative error of the length."""
        if self.training and self.length_weight > 0:
            model.decoder.length_rule.batches += 1  # decoding refuses a predictor that was never trained
        true = sample["target"].ne(self.padding_idx).sum(1) - model.decoder.prefix_size
        error = extra["length_log_ratio"] + extra["source_lengths"].log() - true.log()  # log of expected over true
        return self.length_weight * error.abs().sum(), {"length_error": (error.exp() - 1).abs().sum()}

    def _latency(self, model: BaseFairseqModel, extra: dict[str, Any], sample: dict[str, Any]) -> Term:
        """Return both latency terms; log the latency (encoder states) and the variance of the heads' delays."""
        mask = sample["target"][:, self.ignore_prefix_size :].ne(self.padding_idx)
        delays = extra["delays"][..., self.ignore_prefix_size :].float()
        gathered, lengths = gather(delays, self.gather_method), extra["source_lengths"].to(delays)
        latency, spread = self.metric(gathered, lengths, mask).sum(), variance(delays, mask).sum()
        added = self.average_weight * latency + self.variance_weight * spread
        if model.encoder.num_updates < self.update_after:  # fairseq gives the number of updates to models only
            added = torch.zeros_like(added)
        return added, {"latency": latency, "delays_var": spread}

    def _boundary(self, model: BaseFairseqModel, encoder_out: dict[str, Any], sample: dict[str, Any]) -> Term:
        """Return the boundary loss; log its mean over states."""
        logits, real = encoder_out["boundary"], encoder_out["boundary_real"]
        loss = boundary_loss(logits, real, sample["speech_end"], sample["speech"])
        size, sentences = self._sample_size(sample), sample["target"].size(0)
        # fairseq divides a batch's loss by its size: a mean over states then has the weight of a mean over tokens
        return model.encoder.boundary.weight * size * loss, {"boundary_loss": sentences * loss}

    def _ctc(self, model: BaseFairseqModel, encoder_out: dict[str, Any], sample: dict[str, Any], text: str) -> Term:
        """Return the CTC loss of one text; log it with the number of its symbols."""
        ctc, name = model.encoder.ctc, "ctc" if text == SOURCE else "ctc_target"
        targets = ctc_targets(text, sample, ctc.alphabet, self.ignore_prefix_size, self.padding_idx)
        log_probs, lengths = ctc(encoder_out, text)
        loss = ctc_loss(log_probs, lengths, targets)
        count = torch.tensor(sum(map(len, targets)))
        return ctc.weight * loss, {f"{name}_loss": loss, f"{name}_symbols": count}

    @torch.no_grad()
    def _validation(
        self, model: BaseFairseqModel, extra: dict[str, Any], sample: dict[str, Any], nll_loss: Tensor
    ) -> dict[str, Tensor]:
        """Return what only validation logs: the errors of transcripts, and the loss on wrong audio."""
        encoder_out, rows = extra.get("encoder_out"), sample["target"].size(0)
        found: dict[str, Tensor] = {}
        if encoder_out is None:
            return found
        if (ctc := getattr(model.encoder, "ctc", None)) is not None and SOURCE in ctc.heads:
            found |= count_errors(ctc.transcripts(encoder_out), sample["transcripts"])
        if rows > 1:
            order = torch.arange(rows, device=sample["target"].device).roll(-1)
            wrong = model.encoder.reorder_encoder_out(encoder_out, order)
            net_output = model.decoder(sample["net_input"]["prev_output_tokens"], wrong)
            _, loss = self.compute_loss(model, net_output, sample)
            found |= {"loss_gap": loss - nll_loss, "gap_tokens": torch.tensor(sample["ntokens"])}
        return found

    def _sample_size(self, sample: dict[str, Any]) -> int:
        return sample["target"].size(0) if self.sentence_avg else sample["ntokens"]

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Log fairseq's metrics, and the means over sentences of what the terms logged."""
        super().reduce_metrics(logging_outputs)
        sentences = sum(log.get("nsentences", 0) for log in logging_outputs)
        for name, digits in AVERAGED.items():
            if any(name in log for log in logging_outputs):
                total = sum(float(log.get(name, 0)) for log in logging_outputs)
                metrics.log_scalar(name, total / max(sentences, 1), sentences, round=digits)
        for name, (divisor, factor) in RATIOS.items():
            if (count := sum(float(log.get(divisor, 0)) for log in logging_outputs)) > 0:
                total = sum(float(log.get(name, 0)) for log in logging_outputs)
                metrics.log_scalar(name, factor * total / count, count, round=3)


@register_criterion("latency_augmented_label_smoothed_cross_entropy_mla", dataclass=OptionalTermsConfig)
class LatencyAugmentedCriterion(OptionalTermsCriterion):
    """The same criterion under its former name for models with monotonic attention."""
