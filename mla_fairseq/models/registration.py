"""Registration with fairseq, for code below the plugin, which the plugin itself imports."""

from argparse import Namespace
from pathlib import Path

from fairseq import utils

PACKAGE = Path(__file__).resolve().parents[1]


def register() -> None:
    """Register models, criterions and tasks with fairseq, as ``--user-dir mla_fairseq`` does.

    Modules of streaming and synthesis cannot import ``mla_fairseq.plugin``: it imports them.
    """
    utils.import_user_module(Namespace(user_dir=str(PACKAGE)))
