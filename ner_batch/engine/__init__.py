"""vLLM on one replica."""
