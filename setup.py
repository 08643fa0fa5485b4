"""Which folders are packages; pyproject.toml has everything else."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["mla_fairseq", "mla_fairseq.*"]), "mla_fairseq.configs"],
    package_dir={"mla_fairseq.configs": "configs"},  # at the top of a checkout, inside the package of a wheel
)
