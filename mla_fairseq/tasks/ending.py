"""End a command of fairseq or SimulEval without a traceback where a line says enough."""

from __future__ import annotations

import errno
import os
import sys
from types import TracebackType

from torch.multiprocessing import ProcessExitedException

FOREIGN = ("fairseq-", "simuleval", "simulstream")
"""Beginnings of the names of programs that would answer Ctrl-C with a traceback."""


def end_quietly() -> None:
    """Let a command end without a traceback after Ctrl-C, a full disk, or a mistake that its own process reported.

    On a machine with several GPUs fairseq starts a process for each; a ``UserError`` ends it with the status 1.
    """
    show = sys.excepthook

    def show_others(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt) and os.path.basename(sys.argv[0]).startswith(FOREIGN):
            print("stopped", file=sys.stderr)  # other programs keep their tracebacks
        elif isinstance(error, OSError) and error.errno == errno.ENOSPC:  # such as fairseq-generate --results-path
            where = f" ({error.filename})" if error.filename else ""
            print(f"error: no space is left on the disk{where}: make room, or write to another", file=sys.stderr)
        elif not (isinstance(error, ProcessExitedException) and error.exit_code == 1):
            show(kind, error, trace)

    sys.excepthook = show_others
