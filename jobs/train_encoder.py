"""Train a sentence encoder from raw text: `python jobs/train_encoder.py jobs/train-encoder.yaml [a.b=value ...]`."""

import sys

from ner_batch.cli import main

if __name__ == "__main__":
    main("train-encoder", *sys.argv[1:])
