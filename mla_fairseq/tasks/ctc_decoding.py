"""Joint decoding with CTC in fairseq's commands."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mla_fairseq.models.ctc import TARGET
from mla_fairseq.models.ctc_prefix import PrefixScores, check_target, mixed
from mla_fairseq.streaming.checks import check_weight

Output = dict[str, Any]
"""What an encoder returns."""


def add_ctc_args(parser: ArgumentParser) -> None:
    """Add the flag of joint decoding."""
    parser.add_argument(
        "--ctc-decoding-weight",
        type=float,
        metavar="W",
        help="weight of CTC prefix scores in decoding, from 0 to below 1, for models trained with --ctc-text target or "
        "both; 0.3 is a good weight (default: 0, attention alone)",
    )


def check_joint(models: Sequence[Any], args: Namespace, scores: bool) -> None:
    """Check ``--ctc-decoding-weight``, unless it is not given.

    Args:
        models: the models.
        args: the command's flags.
        scores: the command decodes nothing, but scores references.

    Raises:
        ValueError: a weight outside 0 to 1, or models or flags that it does not suit.
    """
    if (weight := getattr(args, "ctc_decoding_weight", None)) is None:
        return
    check_weight(weight)
    if len(models) > 1:
        raise ValueError(
            f"--ctc-decoding-weight is not supported for ensembles ({len(models)} models): give one --path"
        )
    if scores:
        raise ValueError(
            "--ctc-decoding-weight is not supported with --score-reference, which decodes nothing: remove it"
        )
    if getattr(args, "simul_waitk_lagging", None) is not None:
        raise ValueError("--ctc-decoding-weight reads the whole source, but --simul-waitk-lagging does not: remove one")
    if getattr(args, "sampling", False):
        raise ValueError(
            "--ctc-decoding-weight is not supported with --sampling, because joint scores are no probabilities: "
            "remove one"
        )
    if weight:
        check_target(models[0])


class JointSearch:
    """Let fairseq's search of a translation add CTC prefix scores to those of attention.

    Args:
        generator: fairseq's, for one model; its search is changed.
        model: has a CTC output for the translation.
        weight: of the CTC prefix scores; that of attention is 1 - ``weight``.
        prefix: number of tags before each translation, which CTC does not emit.

    Attributes:
        outputs: what the encoder has returned for this batch; the last one counts.
    """

    def __init__(self, generator: Any, model: Any, weight: float, prefix: int) -> None:
        self.ctc, self.weight, self.eos, self.prefix = model.encoder.ctc, weight, generator.eos, prefix
        self.outputs: list[Output] = []
        self.known: dict[tuple[int, ...], int] = {}
        self.attention_step = generator.search.step
        generator.search.step = self.step

    def step(self, step: int, log_probs: Tensor, scores: Tensor, tokens: Tensor, ids: Tensor, *more: Any) -> Any:
        """Choose the next tokens as the search of ``generator`` does; see ``joint`` for the arguments."""
        return self.attention_step(step, self.joint(log_probs, tokens, ids), scores, tokens, ids, *more)

    def joint(self, log_probs: Tensor, tokens: Tensor, ids: Tensor) -> Tensor:
        """Return the weighted sum of both scores of the next tokens.

        Args:
            log_probs: (B, beam, V), those of attention.
            tokens: (B * beam, T), the hypotheses, whose first token is no part of the sentence.
            ids: (B,), the sentences that are not finished.
        """
        if tokens.shape[1] == 1:
            log_probs_of_states, lengths = self.ctc(self.outputs[-1], TARGET)
            self.prefixes = PrefixScores(log_probs_of_states.transpose(0, 1).double().exp(), lengths, self.eos)
            self.known = {(name,): row for row, name in enumerate(ids.tolist())}
        if tokens.shape[1] <= self.prefix:  # a tag is forced
            return (1 - self.weight) * log_probs
        self._follow(tokens[:, 1 + self.prefix :], ids.repeat_interleave(log_probs.shape[1]).tolist())
        return mixed(log_probs, self.prefixes.scores().view_as(log_probs), self.weight)

    def _follow(self, tokens: Tensor, names: list[int]) -> None:
        """Continue the prefix scores of the hypotheses that fairseq has kept, tokens (N, T) of sentences ``names``."""
        found = [(name, *row) for name, row in zip(names, tokens.tolist(), strict=True)]
        new = tokens.shape[1] > 0
        parents = torch.tensor([self.known[one[:-1] if new else one] for one in found], device=tokens.device)
        if new:
            self.prefixes.advance(parents, tokens[:, -1])
        else:
            self.prefixes.keep(parents)
        self.known = {one: place for place, one in enumerate(found)}
