"""What `ner-batch report` takes for large outputs, and how soon its page of 10,000 rows can be used in Chromium.

`PYTHONPATH=.:tests python tests/benchmarks/bench_report.py [rows ...]`: outputs of so many rows (20,000 and 200,000 by
default) of 400 characters with up to four entities of eight types, half of the surfaces different from all others. Of each:
seconds and peak memory of the command, then of its page with 10,000 rows: megabytes, nodes, and seconds from the start of
loading until the document is parsed and its list is shown.
"""

import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from outputs import write_output
from playwright.sync_api import sync_playwright

from ner_batch.data import Entity, Prediction

TYPES = tuple(f"TYPE{n}" for n in range(8))
CHARACTERS = 400
UNIT_ROWS = 1000


def rows(count):
    """Texts of words, with entities of two words or of a number that no other row has."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(3, 9))) for _ in range(2000)]
    for number in range(count):
        text = f"number{number} " + " ".join(rng.choices(words, k=80))
        text = text[:CHARACTERS]
        entities = [Entity(0, len(f"number{number}"), TYPES[0], f"number{number}", rng.random())] if number % 2 else []
        for start in sorted(rng.sample(range(20, CHARACTERS - 40), 3)):
            entities.append(Entity(start, start + 8, rng.choice(TYPES), text[start : start + 8], rng.random()))
        yield f"doc-{number:09d}", text, Prediction(tuple(entities), prompt_tokens=300, completion_tokens=20)


def open_page(path):
    """(seconds until DOMContentLoaded, seconds until the list is shown, nodes)."""
    chromium = os.environ.get("NER_BATCH_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        start = time.perf_counter()
        page.goto(path.as_uri(), wait_until="commit")
        page.locator("article").first.wait_for()
        shown = time.perf_counter() - start
        parsed = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd") / 1000
        return parsed, shown, page.evaluate("document.querySelectorAll('*').length")


def main(counts):
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            write_output(Path(folder) / "out", list(rows(count)), unit_rows=UNIT_ROWS)
            command = [sys.executable, "-m", "ner_batch", "report", f"{folder}/out", "--rows", "10000"]
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of the largest so far
            path = Path(folder) / "out" / "_report.html"
            parsed, shown, nodes = open_page(path)
            print(
                f"{count:,} rows: {seconds:.1f} s, {peak:,.0f} MiB; page {path.stat().st_size / 1e6:.1f} MB, "
                f"parsed in {parsed:.2f} s, list shown in {shown:.2f} s, {nodes:,} nodes"
            )


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [20_000, 200_000])
