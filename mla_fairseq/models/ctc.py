"""The CTC outputs of a speech encoder: characters of the transcript, symbols of the translation."""

from __future__ import annotations

import logging
from argparse import Namespace, _ActionsContainer
from pathlib import Path
from typing import Any

import torch
from jiwer import process_words
from torch import Tensor, nn

from mla_fairseq.checkpoints import load_checkpoint, transcript_symbols
from mla_fairseq.models.checks import CRITERION, LATENCY_CRITERION, resumed, starts
from mla_fairseq.transcripts import BLANK, FIRST, Alphabet, normalise

logger = logging.getLogger(__name__)

SOURCE, TARGET = "source", "target"
TEXTS = {SOURCE: (SOURCE,), TARGET: (TARGET,), "both": (SOURCE, TARGET)}
"""Values of ``--ctc-text``, and the texts that each of them names."""


def add_ctc_args(parser: _ActionsContainer) -> None:
    """Add the flags of the CTC outputs; ``--ctc-weight`` is a flag of the criterion."""
    parser.add_argument(
        "--ctc-text",
        choices=tuple(TEXTS),
        help="text that CTC learns: the transcript (source, in characters), the translation (target, in its "
        "vocabulary, for --ctc-decoding-weight), or both (default: source)",
    )
    parser.add_argument(
        "--ctc-layer",
        type=int,
        metavar="N",
        help="encoder layer, from 1, whose states CTC reads for the transcript; for the translation it reads the last "
        "one (default: two thirds of the layers, 4 of 6)",
    )


def ctc_texts(args: Namespace) -> tuple[str, ...]:
    """Return the texts that a model with these options has CTC outputs for: none, ``source``, ``target`` or both."""
    # with fairseq's label_smoothed_cross_entropy_with_ctc the encoder has fairseq's ctc_proj instead
    ours = getattr(args, "criterion", None) in (CRITERION, LATENCY_CRITERION)
    if not ours or not (getattr(args, "ctc_weight", None) or 0) > 0:
        return ()
    return TEXTS[getattr(args, "ctc_text", None) or SOURCE]


def source_symbols(args: Namespace, task: Any) -> str:
    """Return the characters of transcripts: those of the checkpoint if there is one, else those of the data folder.

    A training that starts from all weights of another model keeps its characters, because each has a row of them.

    Raises:
        ValueError: the model needs some, but the task or its data folder has none, or others than the checkpoint that
            ``fairseq-train`` is about to resume.
    """
    if SOURCE not in ctc_texts(args):
        return ""
    if saved := getattr(args, "ctc_symbols", None):
        return saved
    if not hasattr(task, "transcript_symbols"):
        raise ValueError("--ctc-weight needs the transcripts of --task speech_to_text_mla: use that task")
    symbols = task.transcript_symbols()
    if (last := resumed(args)) is not None:
        before = transcript_symbols(load_checkpoint(last))
        if before and before != symbols:
            raise ValueError(
                f"{last} was trained with other characters of transcripts than those of {args.data} ({before!r}, "
                f"{symbols!r}): use the folder of its training data, or give another --save-dir"
            )
    for path in starts(args):
        if before := transcript_symbols(load_checkpoint(Path(path))):
            if missing := set(symbols) - set(before):
                logger.warning("CTC has the characters of %s: %r are unknown to it", path, "".join(sorted(missing)))
            return before
    return symbols


def has_output(model: Any, text: str) -> bool:
    """Return whether a model has a CTC output for a text, ``source`` or ``target``."""
    ctc = getattr(getattr(model, "encoder", None), "ctc", None)
    return ctc is not None and text in ctc.heads


class CTCHead(nn.Module):
    """Layer norm and a linear map from encoder states (S, B, C) to logits (S, B, V) in float32."""

    def __init__(self, channels: int, symbols: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(channels), nn.Linear(channels, symbols)

    def forward(self, states: Tensor) -> Tensor:
        """Return logits (S, B, V)."""
        return self.linear(self.norm(states)).float()


class CTCOutputs(nn.Module):
    """The CTC outputs of an encoder.

    Args:
        args: the model's options; ``ctc_symbols`` are the characters of transcripts.
        texts: what ``ctc_texts`` returned; not empty.

    Attributes:
        layer: encoder layer, from 1, that the output for the transcript reads.
        alphabet: the characters of transcripts.

    Raises:
        ValueError: ``--ctc-layer`` is no layer of the encoder.
    """

    def __init__(self, args: Namespace, texts: tuple[str, ...]) -> None:
        super().__init__()
        layer = getattr(args, "ctc_layer", None)
        self.layer = max(1, round(args.encoder_layers * 2 / 3)) if layer is None else layer
        if not 1 <= self.layer <= args.encoder_layers:
            raise ValueError(f"--ctc-layer must be within 1 and {args.encoder_layers}, but is {self.layer}")
        self.weight = float(args.ctc_weight)
        self.alphabet = Alphabet(getattr(args, "ctc_symbols", ""))
        sizes = {SOURCE: len(self.alphabet), TARGET: args.tgt_dict_size}
        self.heads = nn.ModuleDict({text: CTCHead(args.encoder_embed_dim, sizes[text]) for text in texts})

    @classmethod
    def build(cls, args: Namespace) -> CTCOutputs | None:
        """Build the outputs that ``--ctc-weight`` and ``--ctc-text`` ask for; ``None``: none."""
        texts = ctc_texts(args)
        return cls(args, texts) if texts else None

    def adapt(self, state_dict: dict[str, Tensor], symbols: str) -> None:
        """Let an encoder's parameters load whose outputs have other symbols.

        The rows of characters that both have are put in their places here; the others, and the output for the
        translation, whose vocabulary an encoder's checkpoint does not tell, keep their present values.

        Args:
            state_dict: the parameters of the other encoder, changed in place.
            symbols: its characters of transcripts.
        """
        source = f"ctc.heads.{SOURCE}."
        for name in [name for name in state_dict if name.startswith("ctc.heads.")]:
            if not symbols or not name.startswith(source):
                del state_dict[name]
        mine = self.alphabet.symbols
        shared = [symbol for symbol in mine if symbol in symbols]
        here, there = (
            [*range(FIRST), *(FIRST + known.index(symbol) for symbol in shared)] for known in (mine, symbols)
        )
        for name, own in self.state_dict(prefix="ctc.").items():
            other = state_dict.get(name)
            # an encoder of another width is refused with all its names when it is loaded
            if name.startswith(f"{source}linear.") and other is not None and other.shape[1:] == own.shape[1:]:
                state_dict[name] = own.clone()
                state_dict[name][here] = other[there].to(own.dtype)

    def forward(self, encoder_out: dict[str, Any], text: str) -> tuple[Tensor, Tensor]:
        """Return log-probabilities (S, B, V) in float32, and the numbers of states (B,), of one text.

        Args:
            encoder_out: what the encoder returned.
            text: ``source`` or ``target``.
        """
        states = encoder_out["ctc_states" if text == SOURCE else "encoder_out"][0]
        padding = encoder_out["encoder_padding_mask"]
        lengths = (~padding[0]).sum(1) if padding else torch.full_like(states[0, :, 0], len(states), dtype=torch.long)
        return self.heads[text](states).log_softmax(-1), lengths

    def transcripts(self, encoder_out: dict[str, Any]) -> list[str]:
        """Return the transcript of each stream: the best symbol of each state, without repetitions and blanks."""
        log_probs, lengths = self(encoder_out, SOURCE)
        rows = zip(log_probs.argmax(-1).t().cpu(), lengths.tolist(), strict=True)
        return [self.alphabet.decode(collapse(row[:length])) for row, length in rows]


def collapse(best: Tensor) -> list[int]:
    """Return the symbols of an alignment (S,): each run of a symbol once, without blanks."""
    return [symbol for symbol in best.unique_consecutive().tolist() if symbol != BLANK]


def word_errors(found: str, reference: str) -> tuple[int, int]:
    """Return the substitutions, insertions and deletions of a transcript, and the words of its reference.

    Both texts are normalised first.
    """
    result = process_words(normalise(reference), normalise(found))
    return result.substitutions + result.insertions + result.deletions, len(result.references[0])
