"""Strict span F1 of generated answers: what the best checkpoint is chosen by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from ner_batch.data import Entity, Example, clean
from ner_batch.evaluate.metrics import Scores, score
from ner_batch.prompts.builder import Prompt, PromptBuilder
from ner_batch.train import attention

BATCH = 32  # prompts answered together


@dataclass(frozen=True, slots=True)
class DevPrompt:
    """A prompt about the dev example of number ``example``: its text, cleaned, and the labels it asks for."""

    example: int
    text: str
    labels: tuple[str, ...]
    prompt: Prompt


def dev_prompts(
    examples: Sequence[Example], demonstrations: Sequence[Sequence[Example]], builder: PromptBuilder
) -> list[DevPrompt]:
    """The prompts inference would ask; those that do not fit are left out, and their entities missed."""
    prompts = []
    for number, (example, nearest) in enumerate(zip(examples, demonstrations, strict=True)):
        text = clean(example.text)
        for labels in builder.format.groups(builder.task):
            prompt = builder.build(text, labels, nearest)
            if prompt:
                prompts.append(DevPrompt(number, text, labels, prompt))
    return prompts


def answers_in_training(
    model: PeftModel,
    prompts: Sequence[DevPrompt],
    builder: PromptBuilder,
    before_batch: Callable[[int], object] | None = None,
) -> list[str]:
    """The greedy answers of a model that trains. Its attention is torch's own meanwhile, and dropout is off."""
    base = model.get_base_model()
    training = model.training
    model.eval()
    base.set_attn_implementation("sdpa")
    answers = greedy_answers(base, prompts, builder, before_batch)
    base.set_attn_implementation(attention.NAME)
    model.train(training)
    return answers


def greedy_answers(
    model: PreTrainedModel,
    prompts: Sequence[DevPrompt],
    builder: PromptBuilder,
    before_batch: Callable[[int], object] | None = None,
) -> list[str]:
    """The greedy answers of a model with torch's attention, in evaluation mode; batches are padded on the left.

    ``before_batch`` is called with the number of prompts that are answered.
    """
    stops = builder.chat.stop_token_ids
    # The last token's states of a batch are no contiguous tensor, and on a CPU torch multiplies those with a frozen
    # matrix by copying the matrix for each prompt: 32 prompts to a model of 0.5 B took 10 GB and 56 s, now 1.8 and 15.
    contiguous = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0].contiguous(),))
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].prompt.token_ids))
    answers = [""] * len(prompts)
    for first in range(0, len(order), BATCH):
        numbers = order[first : first + BATCH]
        if before_batch:
            before_batch(first)
        limits = [prompts[i].prompt.max_tokens for i in numbers]
        ids = [torch.tensor(prompts[i].prompt.token_ids) for i in numbers]
        inputs = pad_sequence(ids, batch_first=True, padding_side="left")
        mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True, padding_side="left")
        with torch.no_grad():
            sequences = model.generate(
                input_ids=inputs.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max(limits),
                do_sample=False,
                eos_token_id=list(stops),
                pad_token_id=stops[0],
            )
        for i, limit, tokens in zip(numbers, limits, sequences[:, inputs.shape[1] :].tolist(), strict=True):
            end = next((place for place, token in enumerate(tokens) if token in stops), len(tokens))
            answers[i] = builder.chat.decode(tokens[: min(end, limit)])
    contiguous.remove()
    return answers


def score_answers(
    examples: Sequence[Example], prompts: Sequence[DevPrompt], answers: Sequence[str], builder: PromptBuilder
) -> Scores:
    """Strict scores of the answers, read and grounded as at inference."""
    predictions: list[list[Entity]] = [[] for _ in examples]
    for dev_prompt, answer in zip(prompts, answers, strict=True):
        parsed = builder.format.parse(answer, dev_prompt.text, dev_prompt.labels, builder.task)
        predictions[dev_prompt.example] += parsed.entities
    return score([example.entities for example in examples], predictions)
