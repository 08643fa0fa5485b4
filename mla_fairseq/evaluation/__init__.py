"""Compute quality, latency and curves from the files that fairseq and SimulEval write. Imports no model."""
