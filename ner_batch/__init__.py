"""Named entities from millions of documents with your own open LLM: Parquet in, Parquet out, on Ray and vLLM."""
