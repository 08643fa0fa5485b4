"""Text to speech: a trained model, step-by-step decoding of spectrograms, and vocoders."""
