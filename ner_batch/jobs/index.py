"""`ner-batch index`: check everything, tell what will be built, build it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from rich.console import Console

from ner_batch.config import Config, IndexKind, Uri
from ner_batch.data import Example
from ner_batch.errors import Problems
from ner_batch.io.examples import about_passed_over, read_examples
from ner_batch.retrieval import ENCODED, build
from ner_batch.retrieval.encoder import Encoder
from ner_batch.retrieval.index import check_kind, check_place, local_encoder, usable_examples
from ner_batch.retrieval.vectors import EXACT_SEARCH_LIMIT

OK = 0


class IndexConfig(Config):
    """`ner-batch index`."""

    examples: Uri
    """Gold examples, Parquet with id, text, entities."""
    out: Uri
    """Folder for the index."""
    kind: IndexKind = "lexical"
    """random, lexical (shared character n-grams), sentence (nearest by an encoder), entity (nearest mentions)."""
    encoder: str | None = None
    """sentence, entity: a sentence-transformers model, for entity any Hugging Face model with token states."""
    exact_search_limit: Annotated[int, Field(ge=0)] | None = None
    """sentence, entity: vectors that are searched exactly, more are listed and searched faster; None: 200,000."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An index that can be built."""

    config: IndexConfig
    examples: tuple[Example, ...]
    """As they were read; a build leaves out blank and repeated texts."""
    report: tuple[str, ...]
    """What will be built, line by line."""


def prepare(config: IndexConfig) -> Plan:
    """Check kind, gold, place and encoder, which is loaded for it; a UserError has every problem, one line each."""
    problems = Problems()
    kind = problems.check(lambda: check_kind(config.kind, config.encoder))
    problems.check(lambda: check_place(config.out))
    examples = problems.check(lambda: read_examples(config.examples))
    distinct = None
    if kind is not None and examples is not None:
        distinct = problems.check(lambda: usable_examples(examples, kind, config.examples))
    dimension = 0
    if kind in ENCODED and config.encoder:
        name = local_encoder(config.encoder) or config.encoder
        dimension = problems.check(lambda: _dimension(Encoder(name), kind)) or 0
    problems.stop_if_any()
    assert examples is not None and distinct is not None
    mentions = [entity for example in distinct for entity in example.entities]
    types = Counter(entity.type for entity in mentions)
    blank = sum(not example.text.strip() for example in examples)
    repeated = len(examples) - blank - len(distinct)
    counts = ", ".join(f"{name} {count:,}" for name, count in types.most_common())
    left_out = f"{repeated:,} repeated and {blank:,} blank are left out"
    if kind in ENCODED:  # of mentions at most: one without a token has none
        count = len(mentions) if kind == "entity" else len(distinct)
        limit = EXACT_SEARCH_LIMIT if config.exact_search_limit is None else config.exact_search_limit
        how = "searched exactly" if count <= limit else "searched in lists"
        vectors = f"{count:,} of {dimension:,} dimensions, {count * dimension * 4 / 1e6:,.1f} MB, {how}"
    else:
        vectors = "none" if kind == "random" else f"{len(distinct):,}, sparse"
    report = (
        *about_passed_over(config.examples),
        f"gold: {config.examples}: {len(examples):,} examples, {len(distinct):,} distinct texts ({left_out})",
        f"mentions: {len(mentions):,}" + (f" ({counts})" if counts else ""),
        f"vectors: {vectors}",
        f"kind: {config.kind}, to {config.out}",
    )
    return Plan(config, tuple(examples), report)


def run(plan: Plan, console: Console) -> int:
    """Build the index; whole or not at all."""
    config = plan.config
    limit = config.exact_search_limit
    manifest = build(plan.examples, config.kind, config.out, config.encoder, exact_search_limit=limit)
    console.print(manifest)
    console.print(f"index: {config.out}", highlight=False, markup=False)
    return OK


def _dimension(encoder: Encoder, kind: str | None) -> int:
    """Length of the vectors that a kind takes from an encoder. Raises UserError where it cannot be loaded."""
    vectors = encoder(["a"]) if kind == "sentence" else encoder.tokens(["a"])[0].states
    return int(vectors.shape[1])
