"""What the package is, what it needs, and which extras it has. The tools are configured in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

# mla_fairseq/attention alone needs nothing but torch: it can be copied into any project.
REQUIRED = [
    "torch>=2.4",
    "numpy>=1.26",
    "fairseq-fixed>=0.12.3.1",
    "jiwer>=4.0",
    "kaldi-native-fbank>=1.20",
    "pyyaml>=6.0",
    "sacrebleu>=2.4",
    "sentencepiece>=0.2",
    "soundfile>=0.12",
    "soxr>=0.4",
    "tqdm>=4.64",
]
EXTRAS = {
    "demo": ["espeakng-loader>=0.2.4"],
    "dev": ["hypothesis>=6.100", "pre-commit>=3.7", "pytest>=8.2", "pytest-xdist>=3.6", "ruff>=0.6"],
    "plots": ["matplotlib>=3.8"],
    "simul": ["simuleval>=1.1.4"],
    "tts": ["espeakng-loader>=0.2.4", "librosa>=0.11", "phonemizer>=3.3", "pocketsphinx>=5.1", "scipy>=1.11"],
}


def version() -> str:
    """Read the version from the package's source: importing the package would need torch before it is installed."""
    source = (ROOT / "mla_fairseq" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', source, flags=re.MULTILINE)
    if not found:
        raise ValueError('mla_fairseq/__init__.py needs a line like __version__ = "0.1.0"')
    return found.group(1)


setup(
    name="mla-fairseq",
    version=version(),
    description="Modular linearized attention for speech translation and text to speech in fairseq",
    author="The mla_fairseq authors",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["mla_fairseq", "mla_fairseq.*"]),
    install_requires=REQUIRED,
    extras_require={**EXTRAS, "all": sorted(name for names in EXTRAS.values() for name in names)},
)
