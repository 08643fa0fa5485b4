"""A user-dir: all models of ``mla_fairseq``, and one more attention mechanism."""

from mla_fairseq import plugin  # noqa: F401  registers the models

from . import quadratic_distance  # noqa: F401  registers the mechanism
