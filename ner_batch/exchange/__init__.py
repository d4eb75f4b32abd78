"""Gold and extractions to and from the files of other tools: `ner-batch import` and `ner-batch export`."""
