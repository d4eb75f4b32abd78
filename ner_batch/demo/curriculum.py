"""What the tiny base model is taught: to copy, to find a place again, and to list spans by type.

The listing is asked for in the project's own prompts, with label sets other than the demo's. Some are of another kind
altogether: things between marks, things after a cue word, things of a short list, codes, times and sums, named by
random strings over the whole vocabulary, so that every common character and any word can be copied. Others put names
of the training side under labels of other names and definitions (:data:`words.NAMED`), as a large model has met names
of every kind before it meets a task; the task's own labels only an adapter teaches. All text is generated here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ner_batch.data import Entity, Example
from ner_batch.demo import augment, corpus, patterns, words
from ner_batch.demo.prompting import Prompting
from ner_batch.demo.tokenizer import common_characters
from ner_batch.prompts.chat import ChatTokenizer
from ner_batch.prompts.formats import Format
from ner_batch.task import Label, Language, Task
from ner_batch.train.packing import Pack, Sample, pack
from ner_batch.train.samples import swap

_CHARACTERS = common_characters()
_MARKS = (("«", "»"), ("*", "*"), ("[", "]"), ("\u3010", "\u3011"), ("<", ">"), ("(", ")"), ("\u300c", "\u300d"))
_SHAPES = ("CODE", "EMAIL", "TIME", "MONEY")


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of the packs: copying, finding a place, language modelling, names under other labels; the rest is listing.

    ``demonstrations`` is the share of listing packs with one or two demonstrations in the prompt, ``mutated`` the share
    of names that are made partly random.
    """

    copying: float = 0.12
    finding: float = 0.04
    reading: float = 0.02
    noticing: float = 0.45
    demonstrations: float = 0.15
    chinese_prompts: float = 0.3
    mutated: float = 0.3
    pack_tokens: int = 1300


def word(rng: random.Random) -> str:
    """A made-up word of two or three syllables."""
    return "".join(rng.choices(words.SYLLABLES, k=rng.choice((2, 2, 3))))


def scramble(rng: random.Random, language: str, length: int) -> str:
    """Random text of ``length`` characters for zh; of as many made-up, common and numeric words for en."""
    if language == "zh":
        return "".join(rng.choices(_CHARACTERS, k=length))
    pick = (
        word,
        word,
        lambda r: r.choice(words.COMMON),
        lambda r: str(r.randrange(10**4)),
        lambda r: word(r).capitalize(),
    )
    return " ".join(rng.choice(pick)(rng) for _ in range(length))


def name(rng: random.Random, language: str) -> str:
    """A random span to be copied: unlike any real name on purpose."""
    if language == "zh" and rng.random() < 0.85:
        return "".join(rng.choices(_CHARACTERS, k=rng.choice((1, 2, 2, 3, 3, 4, 5, 8))))
    spoken = [word(rng) for _ in range(rng.choice((1, 1, 2, 2, 3, 4)))]
    return " ".join(w.capitalize() for w in spoken) if rng.random() < 0.6 else " ".join(spoken)


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing to find: its key in ``words.MEANINGS``, and for MARK its two marks."""

    key: str
    marks: tuple[str, str] = ("", "")

    def meaning(self, language: str) -> str:
        """Its definition in a task of that language."""
        return words.MEANINGS[language][self.key].format(*self.marks)

    def clause(self, rng: random.Random, language: str) -> tuple[str, str, str]:
        """Text before the span, the span, and the text after it."""
        if self.key in words.CUES[language]:
            before, after = rng.choice(words.CUES[language][self.key]).split("{X}")
            return before, name(rng, language), after
        spaced = " " if language == "en" else ""
        left, right = (_context(rng, language) for _ in range(2))
        if self.key == "MARK":
            return left + spaced + self.marks[0], name(rng, language), self.marks[1] + spaced + right
        span = (
            rng.choice(words.THINGS[language][self.key])
            if self.key in words.THINGS[language]
            else _shape(rng, self.key, language)
        )
        return left + spaced, span, spaced + right


def _context(rng: random.Random, language: str) -> str:
    """A few words around a span: from the fillers, or random ones."""
    if rng.random() < 0.7:
        return scramble(rng, language, rng.randint(1, 3))
    pool = patterns.FILLERS[language]
    return rng.choice(pool["a"]) + (" the " if language == "en" else "") + rng.choice(pool["c"])


def _shape(rng: random.Random, key: str, language: str) -> str:
    """A code, a mail address, a time of day or a sum of money."""
    if key == "CODE":
        return (
            "".join(rng.choices("ABCDEFGHKLMNPRSTVXZ", k=rng.choice((1, 2, 3))))
            + rng.choice(("-", ""))
            + str(rng.randrange(10, 9999))
        )
    if key == "EMAIL":
        return f"{word(rng)}@{word(rng)}.{rng.choice(('net', 'org', 'cn'))}"
    if key == "TIME":
        return f"{rng.randrange(24)}:{rng.randrange(60):02d}"
    return f"{rng.randrange(2, 9999)}" + (
        rng.choice((" dollars", " pounds")) if language == "en" else rng.choice(("元", "万元"))
    )


def example(rng: random.Random, language: str, kinds: dict[str, Kind], others: Sequence[Kind]) -> Example:
    """One to five clauses about the labelled kinds, and now and then about others, which are no entities here."""
    text, entities = "", []
    labels = list(kinds)
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
        label = rng.choice(labels) if rng.random() < 0.8 else ""
        before, span, after = (kinds[label] if label else rng.choice(others)).clause(rng, language)
        text += (
            (rng.choice((", ", ". ", " and ")) if language == "en" else rng.choice("\uff0c\u3002\uff1b"))
            if text
            else ""
        )
        text += before
        if label:
            entities.append(Entity(len(text), len(text) + len(span), label, span))
        text += span + after
    return Example("", text + ("." if language == "en" else "\u3002"), tuple(entities))


@dataclass(frozen=True, slots=True)
class Curriculum:
    """An endless stream of packs in the prompts of one format."""

    form: Format
    chat: ChatTokenizer
    seed: int
    mix: Mix = field(default_factory=Mix)

    def __iter__(self) -> Iterator[Pack]:
        rng = random.Random(self.seed)
        mix = self.mix
        shares: dict[Callable[[random.Random], list[Sample]], float] = {
            self._copying: mix.copying,
            self._finding: mix.finding,
            self._reading: mix.reading,
            self._noticing: mix.noticing,
        }
        shares[self._listing] = 1.0 - sum(shares.values())
        while True:
            (maker,) = rng.choices(list(shares), list(shares.values()))
            yield from pack(maker(rng), "shared", mix.pack_tokens, rng)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.chat.encode_answer(text))

    def _copying(self, rng: random.Random) -> list[Sample]:
        """A text, then the same again."""
        texts = [scramble(rng, rng.choice(corpus.LANGUAGES), rng.randint(5, 60)) for _ in range(12)]
        return [Sample(self._ids(text), self._ids(text)) for text in texts]

    def _finding(self, rng: random.Random) -> list[Sample]:
        """A long text, the beginning of one of its passages, and how it goes on."""
        ids = self._ids(scramble(rng, rng.choice(corpus.LANGUAGES), rng.randint(100, 500)))
        ids = ids[: self.mix.pack_tokens - 40]
        starts = [rng.randrange(len(ids) - 30) for _ in range(3)]
        return [Sample((*ids, *ids[s : s + 2]), ids[s + 2 : s + 26]) for s in starts]

    def _reading(self, rng: random.Random) -> list[Sample]:
        """Plain sentences, to be predicted from their first token: the words of both languages in their places."""
        writers = [corpus.Writer(rng, language, "train") for language in corpus.LANGUAGES]
        texts = [self._ids(corpus.paragraph(rng.choice(writers), rng.randint(1, 3)).text) for _ in range(10)]
        return [Sample(ids[:1], ids[1:]) for ids in texts]

    def _listing(self, rng: random.Random) -> list[Sample]:
        """One random task; texts with their entities listed by type, sometimes after demonstrations."""
        task, kinds, others = _task(rng, "zh" if rng.random() < self.mix.chinese_prompts else "en")
        shown = rng.choice((1, 2)) if rng.random() < self.mix.demonstrations else 0
        return [self._asked(rng, task, kinds, (others, shown)) for _ in range(24)]

    def _noticing(self, rng: random.Random) -> list[Sample]:
        """Training sentences with their names listed under labels that are not the demo's."""
        language: Language = "zh" if rng.random() < self.mix.chinese_prompts else "en"
        chosen = _other_labels(rng)
        of = {kind: label for label in chosen for kind in words.NAMED[label][0]}
        meanings = {x: Label(definition=words.NAMED[x][1] if language == "en" else words.NAMED[x][2]) for x in chosen}
        prompting = Prompting(self.form, Task(name="lesson", language=language, labels=meanings), self.chat)
        writers = [corpus.Writer(rng, spoken, "train") for spoken in corpus.LANGUAGES]
        texts = [corpus.paragraph(rng.choice(writers), rng.choice((1, 1, 1, 2))).example("") for _ in range(30)]

        def other(entity: Entity) -> str:
            return augment.mutate(entity.text, rng) if rng.random() < self.mix.mutated else entity.text

        return [prompting.sample(swap(_relabelled(text, of), other), ()) for text in texts]

    def _asked(
        self, rng: random.Random, task: Task, kinds: dict[str, Kind], rest: tuple[Sequence[Kind], int]
    ) -> Sample:
        others, shown = rest
        language = task.language if rng.random() < 0.6 else rng.choice(corpus.LANGUAGES)
        *near, asked = (example(rng, language, kinds, others) for _ in range(shown + 1))
        return Prompting(self.form, task, self.chat).sample(asked, near)


def _other_labels(rng: random.Random) -> list[str]:
    """Labels of :data:`words.NAMED` that share no type, up to six, in random order."""
    chosen: list[str] = []
    wanted = rng.randint(1, 6)
    for label in rng.sample(list(words.NAMED), len(words.NAMED)):
        taken = {kind for other in chosen for kind in words.NAMED[other][0]}
        if len(chosen) < wanted and not taken & set(words.NAMED[label][0]):
            chosen.append(label)
    return chosen


def _relabelled(example: Example, of: dict[str, str]) -> Example:
    """The example with its types replaced; types without a replacement are no entities."""
    kept = (replace(e, type=of[e.type]) for e in example.entities if e.type in of)
    return replace(example, entities=tuple(kept))


def _task(rng: random.Random, language: Language) -> tuple[Task, dict[str, Kind], list[Kind]]:
    """A random label set with its kinds, and kinds that are not asked for.

    Labels are mostly named after what they mean. Marked spans get any name, the demo's among them: so the names'
    tokens have been said before, while nothing is learnt about what a PERSON is.
    """
    keys = [*words.CUES["en"], *words.THINGS["en"], *_SHAPES]
    rng.shuffle(keys)
    marks = rng.sample(_MARKS, rng.choice((0, 0, 0, 1, 2)))
    wanted = rng.randint(0 if marks else 1, 5)
    kinds = {key: Kind(key) for key in keys[:wanted]}
    kinds |= zip(
        (x for x in rng.sample(words.LABELS, 8) if x not in keys), (Kind("MARK", pair) for pair in marks), strict=False
    )
    order = rng.sample(list(kinds), len(kinds))
    task = Task(
        name="lesson", language=language, labels={x: Label(definition=kinds[x].meaning(language)) for x in order}
    )
    return task, kinds, [Kind(key) for key in keys[wanted : wanted + 4]]
