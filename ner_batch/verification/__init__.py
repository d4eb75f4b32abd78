"""Self-verification: the yes/no question about an entity, its demonstrations and its answer."""
