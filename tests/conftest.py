"""What every test shares: one thread, a fixed seed, and hypothesis profiles that fit two cores."""

import os

# before torch is imported: the workers of `pytest -n 2` would otherwise fight for the same cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("default", deadline=None, max_examples=25, derandomize=True, database=None)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=500, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def seed() -> None:
    """Start each test from the same random numbers, whatever ran before it in this worker."""
    torch.manual_seed(0)
