"""Quality, latency and training curves, from what fairseq's and SimulEval's programs write.  No model is imported."""
