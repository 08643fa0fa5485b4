"""Worked examples, one folder each; none of them is installed with the package."""
