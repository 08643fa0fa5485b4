"""Prepare corpora for fairseq: layouts on disk, manifests, features, vocabularies. Imports ``speech`` only."""
