"""Build a distribution from those modules of ``mla_fairseq`` that need neither torch nor fairseq; the files are shared.

Install either this distribution or ``mla-fairseq``, which has the same modules and more.
"""

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PACKAGE = Path("../mla_fairseq")
MODULES = {
    "mla_fairseq": ("errors", "files", "json_text"),
    "mla_fairseq.cli": ("edge", "options"),
    "mla_fairseq.data": ("spoken_text",),
    "mla_fairseq.edge": (),
    "mla_fairseq.edge.runtime": tuple(path.stem for path in (PACKAGE / "edge/runtime").glob("*.py")),
    "mla_fairseq.models": ("target_language", "wait_k"),
    "mla_fairseq.speech": ("audio", "pauses", "resample", "samples"),
    "mla_fairseq.streaming": (
        "boundary", "checks", "choice", "detectors", "incremental", "interface", "long", "offline", "offline_policies",
        "policies", "search", "session", "silero", "words",
    ),
    "mla_fairseq.synthesis": ("known", "limits"),
}  # fmt: skip


class Selection(build_py):
    """Take only the modules above, and the ``__init__`` of each package."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        found = super().find_package_modules(package, package_dir)
        return [entry for entry in found if entry[1] in ("__init__", *MODULES[package])]


setup(
    version=re.search(r'^__version__ = "(.+)"', (PACKAGE / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)[1],
    packages=list(MODULES),
    package_dir={"mla_fairseq": str(PACKAGE)},
    package_data={"mla_fairseq.edge": ["demo/*"]},
    cmdclass={"build_py": Selection},
)
