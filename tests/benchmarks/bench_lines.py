"""How fast JSON Lines, CSV and Arrow are listed and read, beside Parquet: `PYTHONPATH=. python tests/benchmarks/bench_lines.py`.

CPU seconds of one process, of 200 MB of English prose in rows of 1,000 characters with an id and a number.
"""

import gzip
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ner_batch.io.listing import list_shards, read_unit
from ner_batch.io.shards import plan_units

ROWS = 200_000
WORDS = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife. "


def main() -> None:
    """Write the files, list and read each, print a table."""
    texts = [(f"{number} " + WORDS * 9)[:1000] for number in range(ROWS)]
    table = pa.table({"id": [f"row-{number}" for number in range(ROWS)], "n": range(ROWS), "text": texts})
    print("| file | MB | listed, CPU-s | all units read, CPU-s | rows/s read |\n|---|---:|---:|---:|---:|")
    with TemporaryDirectory() as folder:
        for name in ("x.parquet", "x.jsonl", "x.jsonl.gz", "x.csv", "x.arrow"):
            path = Path(folder, name)
            if name == "x.parquet":
                pq.write_table(table, path, row_group_size=10_000)
            elif name == "x.csv":
                pa.csv.write_csv(table, path)
            elif name == "x.arrow":
                with pa.ipc.new_stream(str(path), table.schema) as stream:
                    stream.write_table(table, max_chunksize=1000)
            else:
                lines = "".join(f"{json.dumps(row)}\n" for row in table.to_pylist()).encode()
                path.write_bytes(gzip.compress(lines, 6) if name.endswith("gz") else lines)
            start = time.process_time()
            shards = list_shards(str(path), "text").shards
            listed = time.process_time()
            rows = sum(len(read_unit(unit, ["id", "n", "text"])) for unit in plan_units(shards, 2000, 8_000_000))
            seconds = time.process_time() - listed
            assert rows == ROWS
            size = path.stat().st_size / 1e6
            print(
                f"| {name} | {size:,.0f} | {listed - start:.2f} | {seconds:.2f} | {rows / seconds:,.0f} |", flush=True
            )
            path.unlink()


if __name__ == "__main__":
    main()
