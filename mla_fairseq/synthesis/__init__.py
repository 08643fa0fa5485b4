"""Text to speech: step-by-step decoding of spectrograms, vocoders, and a speaker that joins them to a model."""
