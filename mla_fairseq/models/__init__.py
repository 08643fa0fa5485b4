"""Models for fairseq; importing this package registers them."""
