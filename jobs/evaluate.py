"""Score predictions against gold: `python jobs/evaluate.py jobs/evaluate.yaml [a.b=value ...] [--against RUN]`."""

import sys

from ner_batch.cli import main

if __name__ == "__main__":
    main("evaluate", *sys.argv[1:])
