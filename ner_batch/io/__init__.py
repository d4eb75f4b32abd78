"""Files, Parquet shards and gold examples: what is read and written, and where."""
