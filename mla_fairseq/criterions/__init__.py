"""Criterions for fairseq; importing a module of this package registers its criterion."""
