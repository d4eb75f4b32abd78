"""Strict span F1 of generated answers: what the best checkpoint is chosen by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peft import PeftModel
from transformers import PreTrainedModel

from ner_batch.data import Entity, Example, clean
from ner_batch.evaluate.metrics import Scores, score
from ner_batch.prompts.builder import Prompt, PromptBuilder
from ner_batch.train import model as models
from ner_batch.train import segments


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt about an example: which one, and the labels it asks for."""

    example: int
    labels: tuple[str, ...]
    prompt: Prompt


def questions(examples: Sequence[Example], near: Sequence[Sequence[Example]], builder: PromptBuilder) -> list[Question]:
    """The prompts inference would ask; those that do not fit are left out, and their entities missed."""
    asked = [
        (number, labels, builder.build(clean(example.text), labels, shots))
        for number, (example, shots) in enumerate(zip(examples, near, strict=True))
        for labels in builder.format.groups(builder.task)
    ]
    return [Question(number, labels, prompt) for number, labels, prompt in asked if prompt]


def answer(model: PeftModel, asked: Sequence[Question], builder: PromptBuilder) -> list[str]:
    """The model's greedy answers. Its attention is torch's own meanwhile, and dropout is off."""
    base = model.get_base_model()
    training = model.training
    model.eval()
    base.set_attn_implementation("sdpa")
    answers = said(base, asked, builder)
    base.set_attn_implementation(segments.NAME)
    model.train(training)
    return answers


def said(model: PreTrainedModel, asked: Sequence[Question], builder: PromptBuilder) -> list[str]:
    """A plain model's greedy answers."""
    prompts = [q.prompt.token_ids for q in asked]
    return models.answers(model, prompts, builder.chat, [q.prompt.max_tokens for q in asked])


def scores(
    examples: Sequence[Example], asked: Sequence[Question], answers: Sequence[str], builder: PromptBuilder
) -> Scores:
    """Strict scores of the answers, read and grounded as at inference."""
    found: list[list[Entity]] = [[] for _ in examples]
    for question, text in zip(asked, answers, strict=True):
        source = clean(examples[question.example].text)
        found[question.example] += builder.format.parse(text, source, question.labels, builder.task).entities
    return score([example.entities for example in examples], found)
