"""Greedy answers of a transformers model, and the strict F1 of what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ner_batch.chat import ChatTokenizer
from ner_batch.data import Example
from ner_batch.formats import Format
from ner_batch.metrics import Scores, score
from ner_batch.task import Task

Nearest = Callable[[Example], Sequence[Example]]


@dataclass(frozen=True, slots=True)
class Prompting:
    """What turns an example into token ids: format, task and chat tokeniser."""

    format: Format
    task: Task
    chat: ChatTokenizer


def evaluate(model: PreTrainedModel, prompting: Prompting, examples: Sequence[Example], nearest: Nearest) -> Scores:
    """Strict span and type scores over ``examples``; ``nearest`` gives each its demonstrations (possibly none)."""
    form, task, chat = prompting.format, prompting.task, prompting.chat
    prompts = [chat.encode(form.messages(x.text, task.names, task, nearest(x))) for x in examples]
    answers = greedy(model, prompts, chat, 200)
    parsed = [form.parse(a, x.text, task.names, task).entities for a, x in zip(answers, examples, strict=True)]
    return score([x.entities for x in examples], parsed)


@torch.no_grad()
def greedy(model: PreTrainedModel, prompts: Sequence[Sequence[int]], chat: ChatTokenizer, new_tokens: int) -> list[str]:
    """The model's greedy answers in the order of the prompts; batches of 32 prompts of similar length, padded left."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers = [""] * len(prompts)
    for first in range(0, len(order), 32):
        chosen = order[first : first + 32]
        width = max(len(prompts[i]) for i in chosen)
        pad = [width - len(prompts[i]) for i in chosen]
        ids = torch.tensor([[0] * p + list(prompts[i]) for p, i in zip(pad, chosen, strict=True)])
        seen = torch.tensor([[0] * p + [1] * (width - p) for p in pad])
        stops = list(chat.stop_token_ids)
        out = model.generate(ids, attention_mask=seen, max_new_tokens=new_tokens, do_sample=False, eos_token_id=stops)
        for i, row in zip(chosen, out[:, width:].tolist(), strict=True):
            end = next((n for n, token in enumerate(row) if token in stops), len(row))
            answers[i] = chat.decode(row[:end])
    return answers
