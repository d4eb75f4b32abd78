"""Demonstrations of verification judged apart from any model. Run by hand.

`python tests/benchmarks/bench_mention.py [--encoder MODEL] [SET ...]`: over dev texts of Resume, Weibo and GUM
(NER_BATCH_DATA, else ../shared/data), with claims about the whole training set, by letters or by a model's vectors,
- how many of the gold mentions find among 4 demonstrations their own words at all, in a true claim of their type, and in
  a false one; beside one claim each about the 4 sentences nearest to the text, drawn as training draws its questions;
- what a pool costs: seconds and MB to make, milliseconds per question, CPU time;
- how well the likeness tells true claims from false ones, by the likest true claim's less the likest false claim's
  (AUROC over four claims a text, half of them near misses), by code points of context and the surface's share.
"""

from __future__ import annotations

import argparse
import os
import pickle
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sklearn.metrics import roc_auc_score

from ner_batch import retrieval
from ner_batch.data import Entity, Example
from ner_batch.io.examples import read_examples
from ner_batch.retrieval.encoder import Encoder
from ner_batch.verification import pool as mention
from ner_batch.verification.examples import VerificationExample, verification_examples
from ner_batch.verification.pool import Mention, Pool

DATA = Path(os.environ.get("NER_BATCH_DATA", Path(__file__).parents[3] / "shared" / "data"))
SETS = ("resume", "weibo", "gum_named")
K = 4
LIKENESS = ((4, 1.0), (2, 0.7), (4, 0.6), (4, 0.7), (4, 0.8), (8, 0.7), (16, 0.7))


def of_nearest(
    train: Sequence[Example], dev: Sequence[Example], names: Sequence[str]
) -> list[tuple[Entity, list[VerificationExample]]]:
    """The way before: one claim about each of the nearest sentences."""
    with tempfile.TemporaryDirectory() as folder:
        retrieval.build(train, "lexical", Path(folder) / "index")
        near = retrieval.open_index(Path(folder) / "index").nearest([x.text for x in dev], K)
    shown = [[c for x in some for c in verification_examples(x, names, 1, x.id)] for some in near]
    return [(e, made) for x, made in zip(dev, shown, strict=True) for e in x.entities]


def tell(way: str, pairs: Iterable[tuple[Entity, Sequence[VerificationExample]]]) -> None:
    """How often the words asked about are among the demonstrations."""
    found = [[(c.entity.type == e.type, c.is_true) for c in shown if c.entity.text == e.text] for e, shown in pairs]
    some, true, false = (sum(map(test, found)) / len(found) for test in (bool, has(True), has(False)))
    print(f"  {way:<9} same words {some:.1%}, in a true claim of the type {true:.1%}, in a false one {false:.1%}")


def has(true: bool):
    return lambda found: (True, true) in found


def cost(train: Sequence[Example], asked: Sequence[Mention], encoder: Encoder | None) -> Pool:
    """Make a pool and ask it, and tell what that took."""
    start = time.process_time()
    pool = Pool(train, encoder)
    made = time.process_time() - start
    start = time.process_time()
    pool.nearest(asked, K)
    each = (time.process_time() - start) / len(asked)
    size = pool._of_places.nbytes / 2**20 if encoder else len(pickle.dumps(pool)) / 2**20
    print(f"  {len(pool.places):,} places, {made:.1f} s, {size:.0f} MB; {each * 1000:.2f} ms a question")
    return pool


def votes(pool: Pool, asked: Sequence[Mention]) -> Iterator[float]:
    """The likest true claim's likeness less the likest false one's."""
    for first, one in enumerate(asked):
        if first % 32 == 0:
            block = pool.scores(asked[first : first + 32])
        scores = block[first % 32]
        gold = pool._true.get(one.entity.type, [])
        true = scores[gold].max(initial=0)
        scores[gold] = 0
        yield float(true - scores.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder")
    parser.add_argument("sets", nargs="*")
    options = parser.parse_args()
    encoder = Encoder(options.encoder) if options.encoder else None
    for name in options.sets or SETS:
        train, dev = (read_examples(str(DATA / name / f"{part}.parquet")) for part in ("train", "dev"))
        types = sorted({e.type for x in train for e in x.entities})
        gold = [Mention(x.text, e) for x in dev for e in x.entities]
        print(f"{name}: {len(gold):,} gold mentions")
        pool = cost(train, gold, encoder)
        tell("sentences", of_nearest(train, dev, types))
        tell("mentions", zip((a.entity for a in gold), pool.nearest(gold, K), strict=True))
        made = [c for x in dev for c in verification_examples(x, types, 4, x.id)]
        if encoder:
            area = roc_auc_score(
                [c.is_true for c in made], list(votes(pool, [Mention(c.text, c.entity) for c in made]))
            )
            print(f"  vectors: AUROC {area:.3f} over {len(made):,} claims", flush=True)
            continue
        for mention.CONTEXT, mention.SURFACE in LIKENESS:
            area = roc_auc_score(
                [c.is_true for c in made], list(votes(Pool(train), [Mention(c.text, c.entity) for c in made]))
            )
            print(
                f"  context {mention.CONTEXT}, surface {mention.SURFACE}: AUROC {area:.3f} over {len(made):,} claims",
                flush=True,
            )


if __name__ == "__main__":
    main()
