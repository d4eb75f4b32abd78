"""How likely the model found an entity when it named it: the ``score`` of an entity without verification.

The score is the product of the probabilities of the tokens that name the mention: the words, the marks around them and,
as far as the format says it there, the type; a token that reaches over two mentions counts for both. Under a grammar
vLLM's log-probabilities are those after the mask, which overstate; such an answer is read once more without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from ner_batch.data import AnswerSpan, Completion, Entity
from ner_batch.text.folding import fold


def scored(
    entities: Sequence[Entity], named: Sequence[AnswerSpan], completion: Completion, pieces: Sequence[str]
) -> tuple[Entity, ...]:
    """The entities with scores; one whose naming is not found in the answer keeps None.

    ``pieces`` is what each token of the completion adds to its text.
    """
    if len(pieces) != len(completion.logprobs) or "".join(pieces) != completion.text:
        return tuple(entities)
    logprobs = [places[token] for places, token in zip(completion.logprobs, completion.token_ids, strict=True)]
    spans = list(pairwise(accumulate(map(len, pieces), initial=0)))
    unused = list(named)
    scores = []
    for entity in entities:
        of_type = [mention for mention in unused if mention.type == entity.type]
        same = [m for m in of_type if m.text.strip() == entity.text]
        mentions = same or [m for m in of_type if fold(m.text.strip()).text == fold(entity.text).text]
        if mentions:
            unused.remove(mentions[0])
        scores.append(_score(mentions[0], spans, logprobs) if mentions else None)
    return tuple(replace(entity, score=score) for entity, score in zip(entities, scores, strict=True))


def reread(completion: Completion, again: Completion) -> Completion:
    """The completion with the log-probabilities its tokens have where ``again`` read them as the end of a prompt.

    Without any where it was not read: its mentions then have no score, for a masked one would overstate.
    """
    size = len(completion.token_ids)
    read = again.prompt_logprobs[-size:] if size else ()
    logprobs = [logprob for logprob in read if logprob is not None]
    if len(logprobs) != size:
        return replace(completion, logprobs=())
    pairs = zip(completion.token_ids, logprobs, strict=True)
    return replace(completion, logprobs=tuple({token: logprob} for token, logprob in pairs))


def logit(probability: float) -> float:
    """The log-odds, within +-30."""
    inside = min(max(probability, 1e-13), 1 - 1e-13)
    return math.log(inside) - math.log1p(-inside)


def calibrated(entities: Sequence[Entity], slope: float, offset: float) -> tuple[Entity, ...]:
    """The same entities with scores of ``sigmoid(slope * logit(score) + offset)``."""

    def adjusted(score: float) -> float:
        return 1 / (1 + math.exp(min(-(slope * logit(score) + offset), 700.0)))

    return tuple(e if e.score is None else replace(e, score=adjusted(e.score)) for e in entities)


def _score(mention: AnswerSpan, spans: Sequence[tuple[int, int]], logprobs: Sequence[float]) -> float:
    """The product over the tokens that have a part in the mention, tokens of half a character among them."""
    inside = [
        logprob
        for (start, end), logprob in zip(spans, logprobs, strict=True)
        if start < mention.end and (end > mention.start or (start == end and start >= mention.start))
    ]
    return math.exp(min(0.0, math.fsum(inside)))
