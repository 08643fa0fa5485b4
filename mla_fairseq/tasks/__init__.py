"""Define tasks for fairseq; importing a module of this package registers its task."""
