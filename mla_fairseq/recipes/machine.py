"""Where a stage ran: the code's commit, and the type of machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from mla_fairseq.recipes.stages import ROOT


def commit() -> str | None:
    """Return the checkout's commit, ending in ``-dirty`` where tracked files were changed; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def machine(cpu: bool) -> dict[str, Any]:
    """Return the type of machine, never its name."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)$", info.read_text() if info.is_file() else "", re.MULTILINE)
    return {
        "device": "cpu" if cpu else torch.cuda.get_device_name(),
        "cpu": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()),
        "torch": torch.__version__,
    }
