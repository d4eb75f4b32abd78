"""Answers generated while training: the model's own greedy ones, without a copy of the vocabulary for every prompt."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from ner_batch.data import Example
from ner_batch.prompts import formats
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import load_tokenizer
from ner_batch.task import Task
from ner_batch.train import evaluate
from ner_batch.train.evaluate import dev_prompts, greedy_answers

TASK = Task.model_validate({"name": "t", "labels": ["NAME"]})


@pytest.mark.parametrize("frozen", [True, False])
def test_the_output_layer_gets_contiguous_states(random_model, frozen):
    """Torch multiplies others with a frozen matrix by copying it for each prompt of the batch; answers stay the same."""
    model = AutoModelForCausalLM.from_pretrained(random_model).eval().requires_grad_(not frozen)
    builder = PromptBuilder(formats.get("json"), TASK, load_tokenizer(random_model), 4096)
    examples = [Example(str(i), f"Anna met {'Bob ' * i}", ()) for i in range(1, 4)]
    prompts = dev_prompts(examples, [()] * 3, builder)
    seen = []
    layer = model.get_output_embeddings()
    layer.register_forward_hook(lambda _, args, __: seen.append((args[0].shape[0], args[0].is_contiguous())))
    answered = []
    answers = greedy_answers(model, prompts, builder, answered.append)
    assert answered == [0]
    assert {count for count, _ in seen} == {3}
    assert all(contiguous for _, contiguous in seen)
    assert layer._forward_pre_hooks == {}
    for prompt, answer in zip(prompts, answers, strict=True):
        alone = model.generate(
            input_ids=torch.tensor([prompt.prompt.token_ids]),
            attention_mask=torch.ones(1, len(prompt.prompt.token_ids), dtype=torch.long),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=list(builder.chat.stop_token_ids),
            pad_token_id=builder.chat.stop_token_ids[0],
        )[0, len(prompt.prompt.token_ids) :].tolist()
        end = next((place for place, token in enumerate(alone) if token in builder.chat.stop_token_ids), len(alone))
        assert answer.startswith(builder.chat.decode(alone[:end])[:4])


def test_before_each_batch_the_answers_so_far_are_counted(random_model, monkeypatch):
    """Five prompts, two at a time."""
    monkeypatch.setattr(evaluate, "BATCH", 2)
    model = AutoModelForCausalLM.from_pretrained(random_model).eval()
    builder = PromptBuilder(formats.get("json"), TASK, load_tokenizer(random_model), 4096)
    examples = [Example(str(i), "Anna", ()) for i in range(5)]
    answered = []
    greedy_answers(model, dev_prompts(examples, [()] * 5, builder), builder, answered.append)
    assert answered == [0, 2, 4]
