"""Extract entities from Parquet files.

`python jobs/extract.py jobs/extract.yaml [a.b=value ...] [--dry-run] [--limit N] [--retry]`
"""

import sys

from ner_batch.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "extract")
    main()
