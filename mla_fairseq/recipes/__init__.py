"""Recipes: one YAML file per experiment, each section the flags of one program, run stage by stage."""

from mla_fairseq.recipes.check import check
from mla_fairseq.recipes.recipe import Recipe, load_recipe
from mla_fairseq.recipes.runner import run_recipe

__all__ = ["Recipe", "check", "load_recipe", "run_recipe"]
