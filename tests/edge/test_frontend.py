"""The graph of the filter banks computes what Kaldi's library computes."""

import numpy as np
import pytest
import torch

from mla_fairseq.edge.frontend import FrontEnd
from mla_fairseq.speech.features import filter_banks
from mla_fairseq.speech.samples import SHIFT, WINDOW


@pytest.mark.parametrize("loudness", [1.0, 0.01, 1e-4, 0.0])
def test_frames_are_those_of_kaldi(loudness: float) -> None:
    rng, mean, std = np.random.default_rng(3), np.linspace(8, 12, 80), np.linspace(2, 4, 80)
    samples = (0.3 * loudness * rng.standard_normal(7 * SHIFT + WINDOW)).astype(np.float32)
    step = FrontEnd(8, mean.astype(np.float32), std.astype(np.float32))
    found = step.run({"samples": torch.from_numpy(samples).unsqueeze(0)}, {})[0]["frames"]
    np.testing.assert_allclose(found[0].numpy(), (filter_banks(samples) - mean) / std, rtol=0, atol=2e-4)
