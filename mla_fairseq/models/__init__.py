"""Models for fairseq; importing a module of this package registers its models."""
