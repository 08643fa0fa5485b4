"""Names and numbers by which what ``mla-export`` writes and a runtime reads fit together."""

FORMAT = 1
"""Version of the format of a folder, which a runtime checks."""
CONFIG, TOKENS = "config.json", "tokens.txt"
SPEECH_TO_TEXT, TEXT_TO_SPEECH = "speech-to-text", "text-to-speech"
"""Types of models in ``CONFIG``."""

NEXT = "next."  # an output with this prefix is the next value of the state of that name
NEW = "new."  # an output with this prefix is the new rows of the ring of that name
SLOT = "slot"  # the output that says where they go
UNKNOWN = 10**9
"""The length of an input that has not ended."""
