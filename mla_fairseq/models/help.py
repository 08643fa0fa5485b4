"""Our flags in ``fairseq-train --help``.

fairseq prints its help before it has looked at ``--arch``, so no model's flags ever appear there. It offers no hook for
this: the function that adds ``--arch`` to a parser is wrapped, and does nothing new unless help was asked for.
"""

from __future__ import annotations

import functools
import sys
from argparse import ArgumentParser, _ArgumentGroup

from fairseq import options

from mla_fairseq.models.length_options import add_length_args
from mla_fairseq.models.options import add_attention_args
from mla_fairseq.models.simul import add_chunk_args, add_simul_args

TITLE = "attention (s2t_transformer_mla)"
SIMUL_TITLE = "simultaneous translation (convtransformer_simul_mla, s2t_transformer_simul_mla)"


def show_attention_flags() -> None:
    """From now on, ``--help`` lists the flags of the sites, of simultaneous models, and of every mechanism that is
    registered by then."""
    stock = options.add_model_args

    @functools.wraps(stock)
    def add_model_args(parser: ArgumentParser) -> _ArgumentGroup:
        group = stock(parser)
        if {"-h", "--help"} & set(sys.argv[1:]):
            attention = parser.add_argument_group(TITLE)
            add_attention_args(attention)
            add_length_args(attention)
            simultaneous = parser.add_argument_group(SIMUL_TITLE)
            add_chunk_args(simultaneous)
            add_simul_args(simultaneous)
        return group

    options.add_model_args = add_model_args
