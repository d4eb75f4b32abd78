"""Greedy answers of a transformers model, and the strict F1 of what they say."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from ner_batch.chat import ChatTokenizer
from ner_batch.data import Example
from ner_batch.demo.prompting import Prompting
from ner_batch.metrics import Scores, score


def evaluate(
    model: PreTrainedModel, prompting: Prompting, examples: Sequence[Example], shown: Sequence[Sequence[Example]]
) -> Scores:
    """Strict span and type scores over ``examples``; ``shown`` are the demonstrations of each (possibly none)."""
    prompts = [prompting.prompt(x.text, near) for x, near in zip(examples, shown, strict=True)]
    answers = greedy(model, prompts, prompting.chat, 200)
    labels, task = prompting.task.names, prompting.task
    found = [prompting.form.parse(a, x.text, labels, task).entities for a, x in zip(answers, examples, strict=True)]
    return score([x.entities for x in examples], found)


def greedy(model: PreTrainedModel, prompts: Sequence[Sequence[int]], chat: ChatTokenizer, new_tokens: int) -> list[str]:
    """The model's greedy answers in the order of the prompts, in batches of 64 of similar length, padded left."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers = [""] * len(prompts)
    for first in range(0, len(order), 64):
        chosen = order[first : first + 64]
        width = max(len(prompts[i]) for i in chosen)
        pad = [width - len(prompts[i]) for i in chosen]
        ids = torch.tensor([[0] * p + list(prompts[i]) for p, i in zip(pad, chosen, strict=True)])
        seen = torch.tensor([[0] * p + [1] * (width - p) for p in pad])
        stops = list(chat.stop_token_ids)
        with torch.no_grad():
            out = model.generate(
                ids, attention_mask=seen, max_new_tokens=new_tokens, do_sample=False, eos_token_id=stops
            )
        for i, row in zip(chosen, out[:, width:].tolist(), strict=True):
            end = next((n for n, token in enumerate(row) if token in stops), len(row))
            answers[i] = chat.decode(row[:end])
    return answers
