"""The speech encoder: subsampler, positions, and layers under one view."""

from __future__ import annotations

import contextlib
import math
import re
from argparse import Namespace
from typing import Any, ClassVar

import torch
from fairseq.models import FairseqEncoder
from torch import Tensor, nn

from mla_fairseq.attention import Blocks, Layout, Mechanism, State
from mla_fairseq.models.boundary import FRAMES_PER_STATE, BoundaryOutput
from mla_fairseq.models.ctc import CTCOutputs, ctc_texts
from mla_fairseq.models.dropout import Dropout
from mla_fairseq.models.layers import EncoderLayer, SinusoidalPositions
from mla_fairseq.models.length_options import length_options, source_lengths
from mla_fairseq.models.options import site_type
from mla_fairseq.models.simul import check_encoder_view, encoder_view
from mla_fairseq.models.upgrade import adapt_optional, adopt_subsampler
from mla_fairseq.speech.subsample import Conv1dSubsampler, Conv2dSubsampler, frames_before, real_frames

PADDING_IDX = 1


def build_subsampler(args: Namespace) -> Conv1dSubsampler | Conv2dSubsampler:
    """Build the subsampler that ``--conv-version`` names.

    Raises:
        ValueError: an unknown version, or kernel sizes that are not whole numbers above 0.
    """
    features = args.input_feat_per_channel * args.input_channels
    if args.conv_version == "s2t_transformer":
        if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", sizes := args.conv_kernel_sizes):
            raise ValueError(f"--conv-kernel-sizes must be whole numbers above 0, such as 5,5, but is {sizes}")
        kernel_sizes = [int(size) for size in sizes.split(",")]
        return Conv1dSubsampler(features, args.conv_channels, args.encoder_embed_dim, kernel_sizes)
    if args.conv_version == "convtransformer":
        return Conv2dSubsampler(features, args.conv_out_channels, args.encoder_embed_dim)
    raise ValueError(f"--conv-version must be s2t_transformer or convtransformer, but is {args.conv_version!r}")


class SpeechEncoder(FairseqEncoder):
    """Encode filter banks (B, T, F) to states (S, B, C), one per 40 ms; parameters as in ``s2t_transformer``.

    Args:
        args: the model's options.

    Raises:
        ValueError: an unknown subsampler, a mechanism that cannot follow the encoder's view, or a boundary output of a
            full-context encoder.
    """

    layer_type: ClassVar[type[Any]] = EncoderLayer
    layers_name: ClassVar[str] = "transformer_layers"  # as in fairseq's checkpoints

    def __init__(self, args: Namespace) -> None:
        super().__init__(None)  # no dictionary: the input is speech
        self.channels = args.encoder_embed_dim
        self.freezing_updates = args.encoder_freezing_updates
        self.num_updates = 0
        self.embed_scale = 1.0 if args.no_scale_embedding else math.sqrt(args.encoder_embed_dim)
        self.dropout_module = Dropout(args.dropout)
        self.subsample = build_subsampler(args)
        self.embed_positions = SinusoidalPositions(args.encoder_embed_dim, PADDING_IDX)
        layers = [self.layer_type(args, f"encoder.{self.layers_name}.{i}") for i in range(args.encoder_layers)]
        self.add_module(self.layers_name, nn.ModuleList(layers))
        self.layer_norm = nn.LayerNorm(args.encoder_embed_dim) if self._has_final_norm(args) else None
        stock_ctc = getattr(args, "ctc_weight", 0.0) > 0.0 and not ctc_texts(args)
        self.ctc_proj = nn.Linear(args.encoder_embed_dim, args.tgt_dict_size) if stock_ctc else None
        self.ctc = CTCOutputs.build(args)
        self.view = encoder_view(args)
        mechanism: Mechanism = layers[0].self_attn.mechanism
        check_encoder_view(self.view, mechanism, site_type(args, "encoder"))
        self.lengths = length_options(args) if mechanism.needs_lengths else None
        self.boundary = BoundaryOutput.build(args, self.streams)

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor,
        return_all_hiddens: bool = False,
        readable_frames: Tensor | None = None,
        **for_decoder: Any,
    ) -> dict[str, Any]:
        """Return fairseq's encoder output: states (S, B, C) and padding (B, S).

        Args:
            src_tokens: frames (B, T, F).
            src_lengths: (B,), in frames.
            return_all_hiddens: return the output of every layer too, as ``encoder_states``.
            readable_frames: (B,), in training on sentences cut out of a talk: the frames that the decoder may read.
                Later states are left out of ``encoder_out``, but the ``boundary`` output (S, B, 2) has them; its mask
                is ``boundary_real`` (S, B).
            for_decoder: other entries of a batch's ``net_input``, which ask for a decoding (``waitk_lagging``,
                ``target_lengths``); the decoder finds them as ``for_decoder``.
        """
        frozen = self.num_updates < self.freezing_updates
        # a frozen encoder computes without gradients, as in fairseq
        with torch.no_grad() if frozen else contextlib.nullcontext():
            out = self._encode(src_tokens, src_lengths, return_all_hiddens) | {"for_decoder": for_decoder}
            return out if readable_frames is None else self._readable(out, readable_frames)

    def _encode(self, frames: Tensor, lengths: Tensor, return_all_hiddens: bool) -> dict[str, Any]:
        """Return fairseq's encoder output for frames (B, T, F) with lengths (B,)."""
        x, lengths = self.subsample(frames.to(self._dtype), lengths)  # (B, T, F) -> (S, B, C)
        x = self._embed(x, 0)
        mask = real_frames(lengths, x.shape[0])
        key_mask = None if bool(mask.all()) else mask  # without padding no layer needs to mask
        expected = self._expected(lengths)
        layout = Layout.at(
            self.view, 0, len(x), query_length=expected, key_length=expected, key_mask=key_mask, device=x.device
        )
        hidden, for_ctc = [], []
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x, layout)
            if return_all_hiddens:
                hidden.append(x)
            if self.ctc is not None and number == self.ctc.layer:
                for_ctc.append(x)
        if self.layer_norm is not None:
            x = self.layer_norm(x)
        return {
            "encoder_out": [x],
            "encoder_padding_mask": [] if key_mask is None else [~mask],
            "encoder_embedding": [],
            "encoder_states": hidden,
            "ctc_states": for_ctc,
            "src_tokens": [],
            "src_lengths": [],
        }

    def _readable(self, out: dict[str, Any], frames: Tensor) -> dict[str, Any]:
        """Return an output whose decoder reads no state after ``frames`` (B,), with the boundary output of all."""
        x, padding = out["encoder_out"][0], out["encoder_padding_mask"]
        real = ~padding[0].t() if padding else torch.ones_like(x[..., 0], dtype=torch.bool)  # (S, B)
        if self.boundary is not None:
            # a stream has zeros after its last state too
            boundary = self.boundary(x.masked_fill(~real.unsqueeze(-1), 0))
            out = out | {"boundary": boundary, "boundary_real": real}
        most = torch.minimum((frames + FRAMES_PER_STATE - 1) // FRAMES_PER_STATE, real.sum(0)).clamp_min(1)
        x = x[: int(most.max())]
        mask = real_frames(most, len(x))
        for_ctc = [states[: len(x)] for states in out["ctc_states"]]
        mask_out = [] if bool(mask.all()) else [~mask]
        return out | {"encoder_out": [x], "encoder_padding_mask": mask_out, "ctc_states": for_ctc}

    def stream(self, frames: Tensor, state: State, final: bool = False) -> Tensor:
        """Return the encoder states (n, B, C) of the chunks that the next frames (B, N, F) of streams complete.

        They are those that ``forward`` gives for the whole utterance. N and n may be 0.

        Args:
            frames: (B, N, F).
            state: the caller's state, ``{}`` at first; it advances.
            final: the utterance ends here, so its last chunk may be shorter.

        Raises:
            ValueError: a full-context encoder (``--encoder-chunk-size 0``).
        """
        if not isinstance(self.view, Blocks):
            raise ValueError("this is a full-context encoder: to stream, train it with --encoder-chunk-size")
        # the convolutions keep the frames that a later state still needs
        held = state.get("encoder.subsample", {})
        x, state["encoder.subsample"] = self.subsample.stream(frames.to(self._dtype), held, final)
        entry = state.get("encoder") or self._fresh(x)
        x = torch.cat((entry["waiting"].transpose(0, 1), x))
        # only whole chunks are encoded: each state then sees all of its chunk, and never changes
        complete = len(x) if final else len(x) // self.view.size * self.view.size
        x, waiting = x[:complete], x[complete:]
        start = entry["position"]
        # dim 0 of a state is the stream; a copy, because a slice would keep all of x in memory
        state["encoder"] = {"waiting": waiting.transpose(0, 1).clone(), "position": start + complete}
        if complete == 0:
            return x
        x = self._embed(x, start)
        expected = self._expected(start)  # a fixed number: start only gives it the shape (B,)
        layout = Layout.at(self.view, start, complete, query_length=expected, key_length=expected)
        for layer in self.layers:
            x = layer(x, layout, state)
        return x if self.layer_norm is None else self.layer_norm(x)

    @staticmethod
    def _has_final_norm(args: Namespace) -> bool:
        """Return whether a norm follows the last layer."""
        return args.encoder_normalize_before and not getattr(args, "no_encoder_final_norm", False)

    @property
    def layers(self) -> nn.ModuleList:
        """Return the layers, which each type of encoder stores under its name in fairseq's checkpoints."""
        return getattr(self, self.layers_name)

    @property
    def _dtype(self) -> torch.dtype:
        """Return the type of the weights: fairseq casts a model for ``--fp16``, but no batch in decoding."""
        return next(self.subsample.parameters()).dtype

    @property
    def streams(self) -> bool:
        """Return whether this is a chunked encoder."""
        return isinstance(self.view, Blocks)

    def frames_before(self, states: int) -> int:
        """Return the frames that must have arrived for the first ``states`` states, unless the utterance ends."""
        return frames_before(self.subsample.kernel_sizes, states)

    def _fresh(self, x: Tensor) -> dict[str, Tensor]:
        """Return the encoder's entry in a fresh state: states that wait for their chunk, and the next position."""
        waiting = x.new_zeros(x.shape[1], 0, x.shape[2])
        return {"waiting": waiting, "position": torch.zeros(x.shape[1], dtype=torch.long, device=x.device)}

    def _embed(self, x: Tensor, start: int | Tensor) -> Tensor:
        """Return subsampled states (S, B, C) with positions from ``start`` on, an int or (B,)."""
        return self.dropout_module(self.embed_scale * x + self.embed_positions(start, x.shape[0], x.device).to(x))

    def _expected(self, lengths: Tensor) -> Tensor | None:
        """Return what positions are measured against, (B,), from the true numbers of states (B,); ``None``: nothing."""
        return None if self.lengths is None else source_lengths(self.lengths, lengths, self.streams)

    def reorder_encoder_out(self, encoder_out: dict[str, Any], new_order: Tensor) -> dict[str, Any]:
        """Return the encoder's output with stream ``new_order[i]`` at place i, as fairseq's beam search needs it."""
        return {  # encoder states are (S, B, C), all else is batch first
            "encoder_out": [x.index_select(1, new_order) for x in encoder_out["encoder_out"]],
            "encoder_padding_mask": [x.index_select(0, new_order) for x in encoder_out["encoder_padding_mask"]],
            "encoder_embedding": [],
            "encoder_states": [x.index_select(1, new_order) for x in encoder_out["encoder_states"]],
            "src_tokens": [],
            "src_lengths": [],
            "for_decoder": {
                name: value.index_select(0, new_order) if isinstance(value, Tensor) else value
                for name, value in encoder_out.get("for_decoder", {}).items()
            },
        }

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> dict[str, Tensor]:
        """Let checkpoints of fairseq's ConvTransformer load, and those of models with or without optional outputs."""
        prefix = f"{name}." if name else ""
        adopt_subsampler(state_dict, prefix, self.layer_norm is not None)
        adapt_optional(state_dict, f"{prefix}boundary.", self.boundary)
        adapt_optional(state_dict, f"{prefix}ctc.", self.ctc)
        return state_dict

    def set_num_updates(self, num_updates: int) -> None:
        """Take the number of updates from fairseq, for ``--encoder-freezing-updates``."""
        super().set_num_updates(num_updates)
        self.num_updates = num_updates
