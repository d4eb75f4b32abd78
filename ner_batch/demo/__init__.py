"""The demo: a synthetic corpus, a tiny base model that really reads, an adapter for it, and all their recipes."""
