"""Settings of all tests: one thread, a fixed seed, and profiles of hypothesis."""

import os

# before torch is imported: otherwise the workers of `pytest -n 2` compete for the same cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("default", deadline=None, max_examples=25, derandomize=True, database=None)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=500, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def seed() -> None:
    """Start each test from the same random numbers, whatever tests ran before it."""
    torch.manual_seed(0)
