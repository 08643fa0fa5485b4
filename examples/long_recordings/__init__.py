"""Make one long recording of the segments of a test set, with pauses and noise as you choose them."""
