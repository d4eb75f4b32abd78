"""Build an index of demonstrations: `python jobs/index.py jobs/index.yaml [a.b=value ...]`."""

import sys

from ner_batch.cli import main

if __name__ == "__main__":
    main("index", *sys.argv[1:])
