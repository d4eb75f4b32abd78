"""The grid of an ablation: every sensible combination of axes and training subsets, and the config of each."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product

from ner_batch.config import FormatName
from ner_batch.data import Example
from ner_batch.errors import UserError
from ner_batch.experiments.settings import TRAINED, AblateConfig, CurveConfig, Size, VerificationKind
from ner_batch.extraction.settings import Decoding, RecipeConfig, RetrievalConfig
from ner_batch.verification.settings import VerifyConfig


@dataclass(frozen=True, slots=True)
class Subset:
    """A training subset of a learning curve: how many of the examples, and the seed they are drawn with."""

    size: Size
    seed: int

    @property
    def name(self) -> str:
        """In names of files."""
        return f"n{self.size}-s{self.seed}"


def subsets(curve: CurveConfig) -> list[Subset]:
    """Every size with every seed, once."""
    return [Subset(size, seed) for seed in range(curve.seeds) for size in dict.fromkeys(curve.sizes)]


def draw_subset(examples: Sequence[Example], subset: Subset) -> tuple[Example, ...]:
    """The examples of a subset: of one seed the smaller are part of the larger.

    The first has an entity, for a set without any can teach nothing. Otherwise the draw is plain chance.

    Raises:
        UserError: there are fewer examples than the subset has, or none has an entity.
    """
    if subset.size == "all":
        return tuple(examples)
    if subset.size > len(examples):
        raise UserError(f"curve.sizes: {subset.size:,}, but gold.examples has {len(examples):,}: write `all`")
    order = random.Random(subset.seed).sample(list(examples), len(examples))  # noqa: S311 - repeatable, not secret
    first = next((i for i, example in enumerate(order) if example.entities), None)
    if first is None:
        raise UserError("gold.examples: no example has an entity")
    return (order[first], *order[:first], *order[first + 1 :])[: subset.size]


@dataclass(frozen=True, slots=True)
class Combination:
    """A cell of the report. ``retrieval`` "none" has ``k`` 0; ``subset`` is None where it makes no difference."""

    reader: str
    format: FormatName
    decoding: Decoding
    retrieval: str
    k: int
    verification: VerificationKind
    subset: Subset | None = None

    @property
    def name(self) -> str:
        """Its file's name."""
        parts = [self.reader, self.format, self.decoding, self.retrieval, f"k{self.k}", f"verify-{self.verification}"]
        return "_".join([*parts, self.subset.name] if self.subset else parts)

    @property
    def searches(self) -> bool:
        """Whether demonstrations are searched for it."""
        return self.k > 0 or self.verification == "few-shot"

    @property
    def values(self) -> dict[str, object]:
        """Its place on every axis, as plain values."""
        values = asdict(self)
        subset = values.pop("subset") or {"size": None, "seed": None}
        return values | subset


def combinations(config: AblateConfig) -> list[Combination]:
    """Every combination once, in the order of the axes, with each of the subsets that make a difference to it."""
    axes, of_curve = config.axes, subsets(config.curve) if config.curve else []
    retrievals = [(kind, k) for kind in axes.retrieval for k in ((0,) if kind == "none" else axes.k)]
    result: list[Combination] = []
    every = product(axes.reader, axes.format, axes.decoding, retrievals, axes.verification)
    for reader, format_, decoding, (kind, k), verification in dict.fromkeys(every):
        relevant: Sequence[Subset | None] = [None]
        if of_curve and reader == TRAINED:
            relevant = of_curve
        elif of_curve and (k or verification == "few-shot"):  # all of the examples are the same with every seed
            relevant = [subset for subset in of_curve if subset.size != "all" or subset.seed == 0]
        result += [Combination(reader, format_, decoding, kind, k, verification, subset) for subset in relevant]
    return result


def index_kinds(config: AblateConfig) -> tuple[str, ...]:
    """The indexes that are searched; few-shot verification without retrieval takes the first, or lexical."""
    kinds = tuple(dict.fromkeys(kind for kind in config.axes.retrieval if kind != "none"))
    return kinds or (("lexical",) if "few-shot" in config.axes.verification else ())


def recipe_config(
    combination: Combination, config: AblateConfig, adapter: str | None, indexes: Mapping[str, str]
) -> RecipeConfig:
    """What `extract` is configured with; ``adapter`` None: the bare model; ``indexes`` are folders by kind."""
    few_shot = combination.verification == "few-shot"
    kind = combination.retrieval
    if kind == "none" and few_shot:
        kind = index_kinds(config)[0]
    verify = None if combination.verification == "none" else VerifyConfig(k=config.verify_k if few_shot else 0)
    return RecipeConfig(
        engine=config.engine,
        task=config.task,
        adapter=adapter,
        format=combination.format,
        decoding=combination.decoding,
        retrieval=RetrievalConfig(index=None if kind == "none" else indexes[kind], k=combination.k),
        verify=verify,
        windows=config.windows,
    )


def varying_axes(grid: Sequence[Combination]) -> list[str]:
    """The axes on which combinations differ; the first axis where there is one combination."""
    names = list(grid[0].values)
    return [name for name in names if len({combination.values[name] for combination in grid}) > 1] or names[:1]


def label(combination: Combination, axes: Sequence[str]) -> str:
    """What tells a combination from others that differ on ``axes``: `json 4 lexical + zero-shot verification`."""
    words = [str(combination.values[name]) for name in ("reader", "format", "decoding") if name in axes]
    if {"retrieval", "k"} & set(axes):
        words.append(f"{combination.k} {combination.retrieval}" if combination.k else "no demonstrations")
    if combination.verification != "none" and "verification" in axes:
        words.append(f"+ {combination.verification} verification")
    if combination.subset and "size" in axes:
        words.append(f"of {combination.subset.size} examples")
    if combination.subset and "seed" in axes:
        words.append(f"draw {combination.subset.seed + 1}")
    return " ".join(words) or combination.reader
