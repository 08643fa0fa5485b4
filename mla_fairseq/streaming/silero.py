"""silero-vad as a detector of speech: its ONNX graph, run by onnxruntime (extra ``vad``).

The package itself is not imported: that would set the number of torch's threads to 1 for the whole process, and would
load TorchScript, which is code. A graph runs none.
"""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mla_fairseq.errors import needs
from mla_fairseq.speech.samples import SAMPLE_RATE

PACKAGE = "silero_vad"
WINDOW = 512  # samples that the graph judges at once: 32 ms
CONTEXT = 64  # samples before them that it reads again
STATE = (2, 1, 128)
LIKELY = 0.5  # probability above which a window is speech


class SileroDetector:
    """A detector that a neural network has learnt from noisy speech in many languages.

    It costs about 1 % of a core. It needs some 0.1 s of silence to report that speech has ended.

    Raises:
        UserError: silero-vad or onnxruntime is not installed.
    """

    def __init__(self) -> None:
        self.graph = load_graph()
        self.state = np.zeros(STATE, np.float32)
        self.tail = np.zeros(CONTEXT, np.float32)  # samples read already, and those of the next window
        self.speaking = False

    def push(self, block: np.ndarray) -> bool:
        """Return whether the last whole window in the recording up to the end of this block, (640,), is speech."""
        waiting = np.concatenate((self.tail, block))
        while len(waiting) >= CONTEXT + WINDOW:
            window = waiting[None, : CONTEXT + WINDOW]
            inputs = {"input": window, "state": self.state, "sr": np.array(SAMPLE_RATE)}
            probability, self.state = self.graph.run(None, inputs)
            self.speaking = bool(probability.item() > LIKELY)
            waiting = waiting[WINDOW:]
        self.tail = waiting
        return self.speaking

    def fork(self) -> SileroDetector:
        """Return an independent copy; copies share the graph, which keeps no state."""
        return copy.copy(self)


def load_graph() -> Any:
    """Return the graph of the installed silero-vad.

    Raises:
        UserError: silero-vad or onnxruntime is not installed.
    """
    with needs("vad"):
        from onnxruntime import InferenceSession, SessionOptions

        package = find_spec(PACKAGE)  # found, not imported
        if package is None or package.origin is None:
            raise ModuleNotFoundError(f"No module named {PACKAGE!r}")
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # a window is too small to share
    path = Path(package.origin).with_name("data") / "silero_vad.onnx"
    return InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
