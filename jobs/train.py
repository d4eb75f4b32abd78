"""Train a LoRA adapter from gold examples: `python jobs/train.py jobs/train.yaml [a.b=value ...]`."""

import sys

from ner_batch.cli import main

if __name__ == "__main__":
    main("train", *sys.argv[1:])
