"""Retrieval judged apart from any model: do demonstrations hold what the text's gold mentions need? Run by hand.

`python tests/benchmarks/bench_demonstrations.py [TEXTS [ENCODER [SET ...]]]`: over the gold mentions of TEXTS (default
300) test texts of Resume, Weibo, WNUT-17 and NCBI-disease and dev texts of CLUENER, or of the named sets alone
(NER_BATCH_DATA, else ../shared/data), how many of them find in their text's 8 demonstrations a mention
- of the same type,
- of the same surface,
- in the same context: what stands left and right of both is the same, two characters each in a text with Han
  characters, else one word each (between spaces, in lower case); the edge of a text counts as itself;
- in half of it: the same on one side.
Demonstrations come from the whole training set; with a star from the examples that have entities, which are the only
ones that entity chooses from (55 % of Weibo, 36 % of WNUT-17, 54 % of NCBI-disease, nearly all of the others). ENCODER
(for sentence and entity) is the tiny base model of the tests unless another is named: 3 M parameters that have met
synthetic sentences only, no encoder worth the name. `demo-output/encoder`, all-MiniLM-L6-v2, is one for English. About
the F1 of a model that is shown these demonstrations the table says nothing.
"""

from __future__ import annotations

import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ner_batch import retrieval
from ner_batch.data import Entity, Example
from ner_batch.io.examples import read_examples

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("NER_BATCH_DATA", ROOT.parent / "shared" / "data"))
SETS = {"resume": "test", "weibo": "test", "cluener": "dev", "wnut17": "test", "ncbi_disease": "test"}
BASE = ROOT / "tests" / "data" / "tiny" / "base"
K = 8
HAN = re.compile(r"[\u3400-\u9fff]")


def context(example: Example, entity: Entity) -> tuple[str, str]:
    """What stands left and right of a mention."""
    before, after = example.text[: entity.start], example.text[entity.end :]
    if HAN.search(example.text):
        return before[-2:], after[:2]
    return (["", *before.lower().split()][-1], [*after.lower().split(), ""][0])


def judged(queries: Sequence[Example], found: Sequence[Sequence[Example]]) -> list[float]:
    """Percentages of the queries' mentions whose type, surface, context and half context the demonstrations hold."""
    counts = [0, 0, 0, 0]
    for query, near in zip(queries, found, strict=True):
        shown = [(e.type, e.text, context(x, e)) for x in near for e in x.entities]
        types, surfaces, contexts = (set(column) for column in zip(*shown, strict=True)) if shown else (set(),) * 3
        lefts, rights = {left for left, _ in contexts}, {right for _, right in contexts}
        for entity in query.entities:
            left, right = around = context(query, entity)
            met = (entity.type in types, entity.text in surfaces, around in contexts, left in lefts or right in rights)
            counts = [count + hit for count, hit in zip(counts, met, strict=True)]
    total = sum(len(query.entities) for query in queries)
    return [100 * count / total for count in counts]


def measure(name: str, kind: str, limit: int, encoder: str) -> str:
    """One line of the table; seconds of CPU, for the machine may do other work."""
    train = read_examples(str(DATA / name / "train.parquet"))
    test = read_examples(str(DATA / name / f"{SETS[name]}.parquet"))
    queries = random.Random(0).sample(test, min(limit, len(test)))
    if kind.endswith("*"):
        train = [example for example in train if example.entities]
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        named = encoder if kind in ("sentence", "entity") else None
        retrieval.build(train, kind.removesuffix("*"), f"{folder}/index", named)
        built = time.process_time() - start
        index = retrieval.open_index(f"{folder}/index")
        start = time.process_time()
        found = index.nearest([query.text for query in queries], K)
        searched = time.process_time() - start
    figures = " | ".join(f"{figure:.1f}" for figure in judged(queries, found))
    return f"| {name} ({len(train):,} / {len(queries)}) | {kind} | {figures} | {built:.1f} | {searched:.1f} |"


def main() -> None:
    """Print the table."""
    limit, encoder = int(sys.argv[1]) if len(sys.argv) > 1 else 300, sys.argv[2] if len(sys.argv) > 2 else str(BASE)
    print("| set (train / texts) | kind | type % | surface % | context % | half % | build CPU-s | search CPU-s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in sys.argv[3:] or SETS:
        for kind in ("random", "random*", "lexical", "lexical*", "sentence", "entity"):
            print(measure(name, kind, limit, encoder), flush=True)


if __name__ == "__main__":
    main()
