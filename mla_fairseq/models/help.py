"""Show the flags of this package in ``fairseq-train --help``.

fairseq prints its help before it has looked at ``--arch``, so the flags of a model never appear there, and it has no
hook for them. So the function of fairseq that adds ``--arch`` to a parser is wrapped; the wrapper does nothing more
unless help was asked for.
"""

from __future__ import annotations

import functools
import sys
from argparse import ArgumentParser, _ArgumentGroup

from fairseq import options

from mla_fairseq.models.conformer import add_conformer_args
from mla_fairseq.models.length_options import add_length_args
from mla_fairseq.models.options import add_attention_args
from mla_fairseq.models.simul import add_chunk_args, add_simul_args

TITLE = "attention and lengths (all models of mla_fairseq)"
SIMUL_TITLE = (
    "simultaneous translation (convtransformer_simul_mla, s2t_conformer_simul_mla, s2t_transformer_simul_mla; "
    "--encoder-chunk-size and --encoder-left-chunks also s2t_conformer_mla, s2t_transformer_mla)"
)
CONFORMER_TITLE = "Conformer encoder (s2t_conformer_mla, s2t_conformer_simul_mla)"


def show_attention_flags() -> None:
    """Make ``--help`` list the flags of attention, lengths, simultaneous models, Conformers and registered mechanisms.

    A mechanism that is registered before the help is printed is listed too.
    """
    stock = options.add_model_args

    @functools.wraps(stock)
    def add_model_args(parser: ArgumentParser) -> _ArgumentGroup:
        group = stock(parser)
        # help ends the program; in any other run --arch adds these flags, and argparse refuses a flag added twice
        if {"-h", "--help"} & set(sys.argv[1:]):
            attention = parser.add_argument_group(TITLE)
            add_attention_args(attention)
            add_length_args(attention)
            simultaneous = parser.add_argument_group(SIMUL_TITLE)
            add_chunk_args(simultaneous)
            add_simul_args(simultaneous)
            add_conformer_args(parser.add_argument_group(CONFORMER_TITLE))
        return group

    options.add_model_args = add_model_args
