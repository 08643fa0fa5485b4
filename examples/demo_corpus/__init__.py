"""The corpus of ``make demo`` and ``make demo-tts``: sentences of a small grammar, spoken by espeak-ng."""
