"""The Conformer encoder: Conformer layers in place of the Transformer layers of ``SpeechEncoder``."""

from __future__ import annotations

import re
from argparse import BooleanOptionalAction, Namespace, _ActionsContainer

from torch import Tensor, nn

from mla_fairseq.errors import UserError
from mla_fairseq.models.conformer_layer import ConformerLayer
from mla_fairseq.models.encoder import SpeechEncoder

ESPNET_NAMES = {
    "linear_q": "q_proj", "linear_k": "k_proj", "linear_v": "v_proj", "linear_out": "out_proj",
    "linear_pos": "mechanism.linear_pos", "pos_bias_u": "mechanism.pos_bias_u", "pos_bias_v": "mechanism.pos_bias_v",
}  # fmt: skip
"""Names of parameters in fairseq's attention of type ``espnet``, and those here."""
NORMS = {
    "final_layer_norm": "--conformer-block-norm", "conv_module.batch_norm": "--conformer-conv-norm batch",
    "conv_module.depthwise_norm": "--conformer-conv-norm layer",
}  # fmt: skip
"""Norms that a layer may have, and the flags that give it them."""


def add_conformer_args(parser: _ActionsContainer) -> None:
    """Add the flags of a Conformer encoder, under fairseq's names where it has some, to a parser or a group."""
    parser.add_argument(
        "--depthwise-conv-kernel-size",
        type=int,
        metavar="N",
        help="kernel size of the Conformer's convolutions in encoder states (40 ms), an odd number (default: 31, or 15 "
        "in s2t_conformer_mla_tiny)",
    )
    parser.add_argument(
        "--pos-enc-type",
        choices=("abs", "rel_pos"),
        help="positions of the Conformer: absolute ones, added to its input, or relative ones, for softmax attention "
        "only (default: abs)",
    )
    parser.add_argument(
        "--conformer-block-norm",
        action=BooleanOptionalAction,
        default=None,
        help="norm at the end of each Conformer layer, as in fairseq's s2t_conformer, instead of one after the last "
        "layer (default: no)",
    )
    parser.add_argument(
        "--conformer-conv-norm",
        choices=("layer", "batch"),
        help="norm after the depthwise convolution of each Conformer layer: over channels, or over the batch, without "
        "its padding, as in fairseq's s2t_conformer (default: layer)",
    )


def set_conformer_defaults(args: Namespace) -> None:
    """Set the defaults of a Conformer for flags that the command line does not give."""
    for name, value in {"pos_enc_type": "abs", "conformer_block_norm": False, "conformer_conv_norm": "layer"}.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)


class ConformerEncoder(SpeechEncoder):
    """Encode filter banks (B, T, F) to states (S, B, C), one per 40 ms; parameters as in fairseq's ``s2t_conformer``.

    By default the residual stream has no norm at the end of a layer, but one after the last layer. With
    ``--conformer-block-norm`` and ``--conformer-conv-norm batch`` the encoder is fairseq's.
    """

    layer_type = ConformerLayer
    layers_name = "conformer_layers"

    def __init__(self, args: Namespace) -> None:
        super().__init__(args)
        self.adds_positions = args.pos_enc_type == "abs"
        self.linear = nn.Linear(self.channels, self.channels)

    @staticmethod
    def _has_final_norm(args: Namespace) -> bool:
        """Return whether a norm follows the last layer, which has none of its own."""
        return not args.conformer_block_norm

    def _embed(self, x: Tensor, start: int | Tensor) -> Tensor:
        """Return the input (S, B, C) of the layers for subsampled states from ``start`` on, an int or (B,)."""
        x = self.embed_scale * x
        if self.adds_positions:
            x = x + self.embed_positions(start, x.shape[0], x.device).to(x)
        return self.dropout_module(self.linear(x))

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> dict[str, Tensor]:
        """Let checkpoints of fairseq's ``s2t_conformer`` load.

        Raises:
            UserError: the checkpoint has other norms.
        """
        super().upgrade_state_dict_named(state_dict, name)
        prefix = f"{name}.{self.layers_name}." if name else f"{self.layers_name}."
        pattern = re.compile(rf"({re.escape(prefix)}\d+\.self_attn\.)({'|'.join(ESPNET_NAMES)})(\..+)?")
        for match in [match for key in state_dict if (match := pattern.fullmatch(key))]:
            state_dict[f"{match[1]}{ESPNET_NAMES[match[2]]}{match[3] or ''}"] = state_dict.pop(match[0])
        self._check_norms(state_dict, prefix)
        return state_dict

    def _check_norms(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        """Report a norm that either the checkpoint or this encoder has, if the checkpoint is of a Conformer."""
        if f"{prefix}0.ffn1.w_1.weight" not in state_dict:
            return
        here = self.layers[0].state_dict()
        for norm, flag in NORMS.items():
            trained = f"{prefix}0.{norm}.weight" in state_dict
            if trained and f"{norm}.weight" not in here:
                raise UserError(f"the checkpoint is of a Conformer with another norm ({norm}): add {flag}")
            if norm == "final_layer_norm" and not trained and f"{norm}.weight" in here:
                raise UserError(f"the checkpoint is of a Conformer without a norm at each layer's end: remove {flag}")
