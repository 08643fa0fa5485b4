"""Quality and training curves, read from the files that fairseq's programs write.  No model is imported here."""
