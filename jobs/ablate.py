"""Measure on a gold set which of the methods pays: `python jobs/ablate.py jobs/ablate.yaml [a.b=value ...]`."""

import sys

from ner_batch.cli import main

if __name__ == "__main__":
    main("ablate", *sys.argv[1:])
