"""`python -m ner_batch` is the command `ner-batch`."""

from ner_batch.cli import main

if __name__ == "__main__":
    main()
