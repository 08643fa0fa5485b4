"""Data: corpora on disk, and their preparation for fairseq. Imports `speech` only."""
