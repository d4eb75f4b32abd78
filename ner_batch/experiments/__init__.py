"""`ner-batch ablate`: which of the methods pays on your own data, measured."""
