"""Recipes: one YAML file per experiment, run stage by stage through the plain fairseq programs."""

from mla_fairseq.recipes.keys import describe_keys
from mla_fairseq.recipes.loader import load_recipe
from mla_fairseq.recipes.runner import commands_of, context, run_stages
from mla_fairseq.recipes.schema import Recipe
from mla_fairseq.recipes.stages import STAGES

__all__ = ["STAGES", "Recipe", "commands_of", "context", "describe_keys", "load_recipe", "run_stages"]
