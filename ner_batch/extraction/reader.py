"""One task's reader: windows to prompts, answers to grounded spans. An extractor has one per task, on one engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ner_batch import retrieval
from ner_batch.data import Completion, Entity, Example, Parsed, Status, distinct, worst
from ner_batch.engine.engine import Engine, Request
from ner_batch.extraction import confidence
from ner_batch.extraction.recipe import TaskRecipe
from ner_batch.io import copies
from ner_batch.prompts import formats
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import ChatTokenizer
from ner_batch.text.windows import Window
from ner_batch.verification.pool import Pool
from ner_batch.verification.question import Questions
from ner_batch.verification.verifier import Verifier

_EXPLANATIONS = {
    Status.TRUNCATED: "an answer hit its token limit; entities before the cut are kept",
    Status.MALFORMED: "an answer is not in the format",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """The answer, read, and what it cost in tokens; ``error`` says in one line why it is not ok."""

    parsed: Parsed
    error: str | None
    prompt_tokens: int
    completion_tokens: int

    def with_entities(self, entities: Sequence[Entity]) -> Reading:
        """The same reading with other entities (scored or verified ones)."""
        return replace(self, parsed=replace(self.parsed, entities=tuple(entities)))

    def tagged(self, task: str) -> Reading:
        """The same reading with the task's name in entities, ungrounded mentions and the error."""
        entities = tuple(replace(entity, task=task) for entity in self.parsed.entities)
        ungrounded = tuple(replace(mention, task=task) for mention in self.parsed.ungrounded)
        parsed = replace(self.parsed, entities=entities, ungrounded=ungrounded)
        return replace(self, parsed=parsed, error=self.error and f"{task}: {self.error}")

    def plus(self, *costs: Completion | Reading) -> Reading:
        """The same reading, charged with the tokens of further prompts."""
        return replace(
            self,
            prompt_tokens=self.prompt_tokens + sum(cost.prompt_tokens for cost in costs),
            completion_tokens=self.completion_tokens + sum(cost.completion_tokens for cost in costs),
        )


@dataclass(frozen=True, slots=True)
class Query:
    """One prompt to come: a window, the labels it asks for, and the demonstrations it shows, the nearest last."""

    window: Window
    labels: tuple[str, ...]
    demonstrations: Sequence[Example]

    @property
    def takes_grammar(self) -> bool:
        """Whether the window is short enough for a grammar of its text."""
        return len(self.window.text) <= formats.MAX_GRAMMAR_CHARS


class Reader:
    """Reads windows for one task: its adapter, format and demonstrations. May be called from many threads at once.

    Args:
        engine: shared with the other tasks' readers.
        max_model_len: tokens the model can hold, prompt and answer together.
    """

    def __init__(self, recipe: TaskRecipe, engine: Engine, chat: ChatTokenizer, max_model_len: int) -> None:
        self.recipe = recipe
        self.engine = engine
        self.adapter = recipe.adapter and copies.fetched(recipe.adapter)
        self.format = formats.get(recipe.format)
        self.groups = self.format.groups(recipe.task)
        self.builder = PromptBuilder(self.format, recipe.task, chat, max_model_len)
        # Its encoder runs on the CPU, beside the engine, which has the GPU for itself.
        self.index = retrieval.open_index(recipe.index, recipe.encoder, "cpu") if recipe.index else None
        self.verifier = None
        if verify := recipe.verify:
            encoder = self.index.vector_encoder if self.index and verify.similarity == "vectors" else None
            pool = Pool(self.index.examples if self.index and verify.k else (), encoder)
            questions = Questions(recipe.task, chat, max_model_len)
            self.verifier = Verifier(verify, self.adapter, engine, questions, pool)

    def read(self, windows: Sequence[Window], tagged: bool = False) -> list[list[Reading]]:
        """The readings of some windows, in order, one per label group each. ``tagged``: they name their task."""
        texts = [window.text for window in windows]
        demonstrations = self.index.nearest(texts, self.recipe.k) if self.index else [()] * len(texts)
        queries = [
            Query(window, labels, examples)
            for window, examples in zip(windows, demonstrations, strict=True)
            for labels in self.groups
        ]
        votes = self.recipe.votes
        readings = self._ask(queries * (votes.passes if votes else 1))
        if votes:
            readings = [vote(readings[i :: len(queries)], votes.least) for i in range(len(queries))]
        if self.verifier:
            entities = [reading.parsed.entities for reading in readings]
            verdicts = self.verifier.judge([query.window.text for query in queries], entities)
            readings = [
                reading.with_entities(verdict.entities).plus(*verdict.completions)
                for reading, verdict in zip(readings, verdicts, strict=True)
            ]
        if tagged:
            readings = [reading.tagged(self.recipe.task.name) for reading in readings]
        return [readings[i : i + len(self.groups)] for i in range(0, len(readings), len(self.groups))]

    def _ask(self, queries: Sequence[Query]) -> list[Reading]:
        """Decode as configured; under ``auto``, whatever is not made of the source again, under the grammar."""
        readings = self._decode(queries, constrained=self.recipe.decoding == "constrained")
        if self.recipe.decoding != "auto":
            return readings
        unanswered = (Status.TOO_LONG, Status.FAILED)
        doubtful = [
            i
            for i, reading in enumerate(readings)
            if not reading.parsed.faithful and reading.parsed.status not in unanswered and queries[i].takes_grammar
        ]
        for i, reading in zip(doubtful, self._decode([queries[i] for i in doubtful], constrained=True), strict=True):
            readings[i] = repaired(readings[i], reading)
        return readings

    def _decode(self, queries: Sequence[Query], constrained: bool) -> list[Reading]:
        """One answer for every query, read; those that name something with scores, where the recipe asks for them."""
        requests = [self._request(query, constrained) for query in queries]
        answers = iter(self.engine.generate([request for request in requests if request]))
        completions = [next(answers) if request else None for request in requests]
        readings = [self._reading(query, answer) for query, answer in zip(queries, completions, strict=True)]
        return self._scored(queries, requests, completions, readings) if self.recipe.scored else readings

    def _scored(
        self,
        queries: Sequence[Query],
        requests: Sequence[Request | None],
        completions: Sequence[Completion | None],
        readings: Sequence[Reading],
    ) -> list[Reading]:
        """The readings with scores.

        A free answer brings its log-probabilities along. Under a grammar they are masked, so prompt and answer are read
        once more without it: one prefill, past the prefix cache, and one token thrown away. Both count. An answer that
        cannot be read again (it fills the model to the last token, say) leaves its entities without scores.
        """
        answered = {
            i: (request, completion)
            for i, (request, completion) in enumerate(zip(requests, completions, strict=True))
            if request and completion and readings[i].parsed.entities
        }
        again = {
            i: Request([*request.token_ids, *completion.token_ids], 1, request.adapter, prompt_logprobs=True)
            for i, (request, completion) in answered.items()
            if request.grammar
        }
        rereadings = dict(zip(again, self.engine.generate(list(again.values())), strict=True))
        scored = list(readings)
        for i, (request, completion) in answered.items():
            query, reading, rereading = queries[i], readings[i], rereadings.get(i)
            spans = self.format.locate_mentions(completion.text, query.window.text, query.labels, self.recipe.task)
            pieces = self.builder.chat.pieces(request.token_ids, completion.token_ids)
            answer = confidence.reread(completion, rereading) if rereading else completion
            entities = confidence.scored(reading.parsed.entities, spans, answer, pieces)
            if calibration := self.recipe.calibration:
                entities = confidence.calibrated(entities, calibration.slope, calibration.offset)
            costs = [rereading] if rereading and rereading.finish_reason != "error" else []
            scored[i] = reading.with_entities(entities).plus(*costs)
        return scored

    def _request(self, query: Query, constrained: bool) -> Request | None:
        """The request for one prompt; None where the prompt does not fit the model."""
        text = query.window.text
        prompt = self.builder.build(text, query.labels, query.demonstrations)
        if prompt is None:
            return None
        under_grammar = constrained and query.takes_grammar
        grammar = self.format.grammar(text, query.labels, self.recipe.task) if under_grammar else None
        logprobs = () if self.recipe.scored and not grammar else None  # masked ones are of no use, see `confidence`
        temperature = self.recipe.votes.temperature if self.recipe.votes else self.recipe.temperature
        return Request(prompt.token_ids, prompt.max_tokens, self.adapter, grammar, temperature, logprobs)

    def _reading(self, query: Query, completion: Completion | None) -> Reading:
        """An answer, read: grounded mentions, or why there are none."""
        if completion is None:
            nothing = Parsed((), (), Status.TOO_LONG, faithful=False)
            return Reading(nothing, "the prompt does not fit engine.max_model_len", 0, 0)
        tokens = (completion.prompt_tokens, completion.completion_tokens)
        if completion.finish_reason == "error":
            return Reading(Parsed((), (), Status.FAILED, faithful=False), completion.error, *tokens)
        cut_off = completion.finish_reason == "length"
        text = self.format.complete(completion.text) if cut_off else completion.text
        parsed = self.format.parse(text, query.window.text, query.labels, self.recipe.task)
        if cut_off:
            parsed = replace(parsed, status=Status.TRUNCATED, faithful=False)
        return Reading(parsed, _EXPLANATIONS.get(parsed.status), *tokens)


def repaired(free: Reading, constrained: Reading) -> Reading:
    """The constrained answer, the tokens of both, and what the free one named that is not in the text.

    Where the second attempt failed outright, the first one stands.
    """
    status = constrained.parsed.status
    if status is not Status.OK and worst((free.parsed.status, status)) is status:
        return free.plus(constrained)
    ungrounded = tuple(dict.fromkeys((*free.parsed.ungrounded, *constrained.parsed.ungrounded)))
    return replace(constrained, parsed=replace(constrained.parsed, ungrounded=ungrounded)).plus(free)


def vote(passes: Sequence[Reading], min_share: float) -> Reading:
    """One reading out of several of the same prompt: self-consistency.

    After Wang et al. (2023, "Self-consistency improves chain of thought reasoning"), with votes on single entities, as
    in ReverseNER (2024). An entity stays if at least the share ``min_share`` of the passes that were answered in full
    name it; this share is its score. Without any full answer the best of the readings stands. Tokens of all passes are
    counted, and what any of them named that is not in the text is ungrounded.
    """
    first = best = min(passes, key=lambda reading: list(Status).index(reading.parsed.status))
    if best.parsed.status is Status.OK:
        answered = [reading for reading in passes if reading.parsed.status is Status.OK]
        votes = Counter(entity for reading in answered for entity in set(reading.parsed.entities))
        shares = {entity: count / len(answered) for entity, count in votes.items()}
        elected = distinct(replace(entity, score=share) for entity, share in shares.items() if share >= min_share)
        ungrounded = tuple(dict.fromkeys(mention for reading in passes for mention in reading.parsed.ungrounded))
        best = replace(best, parsed=replace(best.parsed, entities=elected, ungrounded=ungrounded))
    return best.plus(*(reading for reading in passes if reading is not first))
