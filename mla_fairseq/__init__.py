"""Modular linearized attention for speech translation in fairseq.

``mla_fairseq.attention`` needs torch alone and never imports fairseq. ``mla_fairseq.plugin`` registers models,
criterions and tasks with fairseq. ``fairseq-train --user-dir mla_fairseq`` imports it; a Python program does so by
``from mla_fairseq import plugin``.
"""

import importlib
import logging
import os
import sys

__version__ = "0.2.0"

# fairseq's text-to-speech task, imported with all others, asks for a package that nothing here uses
logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)


class _Path(list[str]):
    """The package's folders, a list for importlib; asking whether it contains one imports the plugin.

    For ``--user-dir``, fairseq imports a package unless it is in ``sys.modules``. If it is, fairseq asks only whether
    ``__path__`` contains the folder: the one sign that it needs what the package registers.
    """

    def __contains__(self, folder: object) -> bool:
        importlib.import_module("mla_fairseq.plugin")
        # fairseq writes the folder of an installed package as .../fairseq/../mla_fairseq
        return os.path.realpath(str(folder)) in [os.path.realpath(own) for own in self]


__path__ = _Path(__path__)

if sys.modules.get("fairseq"):  # --user-dir: fairseq imports this package and expects its models
    importlib.import_module("mla_fairseq.plugin")
