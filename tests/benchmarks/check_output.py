"""Read an output folder again, from nothing but the Parquet: rows, statuses, grounding, speed. Run by hand.

python tests/benchmarks/check_output.py OUTPUT [text_column]
"""

import json
import sys
from collections import Counter
from pathlib import Path

import pyarrow.dataset as pads


def main(folder: Path, text_column: str) -> None:
    """Print what is there; every span is compared with the text it came from."""
    rows = statuses = spans = real = ungrounded = characters = 0
    statuses = Counter()
    for batch in pads.dataset(folder, format="parquet").to_batches(batch_size=64):
        for row in batch.to_pylist():
            text = row[text_column] or ""
            rows += 1
            characters += len(text)
            statuses[row["status"]] += 1
            spans += len(row["entities"])
            real += sum(text[e["start"] : e["end"]] == e["text"] for e in row["entities"])
            ungrounded += len(row["ungrounded"])
    print(f"{rows:,} rows, {characters:,} characters, {dict(statuses)}")
    print(f"{spans:,} entities, {real:,} of them real slices of their text; {ungrounded:,} mentions ungrounded")
    manifest = json.loads((folder / "_manifest.json").read_text())
    print(f"state {manifest['state']}, {manifest['tokens']:,} tokens, runs {manifest['runs']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(sys.argv[2:] or ["text"]))
