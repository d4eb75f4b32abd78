"""Served = trained: what the comparison costs on a real engine, and what it leaves."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from trainings import plan_training
from transformers import AutoTokenizer

from ner_batch.errors import JobError, UserError
from ner_batch.train import job, serving
from ner_batch.train.plan import finished, write_proof


@pytest.mark.engine
def test_the_tokenizer_is_loaded_as_often_for_many_dev_answers_as_for_few(
    tmp_path, random_model, random_adapter, monkeypatch
):
    """Loading a large vocabulary takes seconds: 200 answers, each with a load of its own, once took 18 minutes."""
    adapter = random_adapter(random_model, 5)
    files = {path.name: path.read_bytes() for path in Path(adapter).iterdir()}
    loads = []
    load = AutoTokenizer.from_pretrained
    monkeypatch.setattr(
        AutoTokenizer, "from_pretrained", lambda *args, **options: loads.append(args) or load(*args, **options)
    )
    numbers = []
    for count in (1, 6):
        plan = plan_training(
            tmp_path,
            random_model,
            dev=count,
            lora={"r": 8, "alpha": 64, "targets": ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]},
            serving={"prompts": 1},
            augmentation={"verification": 1.0},
        )
        loads.clear()
        serving.compare(plan, files, gpu=False)
        numbers.append(len(loads))
    assert numbers[1] <= numbers[0]  # the first engine of a process may load it once more


def test_too_little_agreement_fails_and_is_written_beside_the_adapter(tmp_path, random_model):
    """One line that names both answers and what to do; in float32 on a CPU nothing less than all will do."""
    plan = plan_training(tmp_path, random_model, dev=1, serving={"min_agreement": 0.5})
    agreement = serving.Agreement(4, 1, ('{"PER":["Anna"]}', "{}"))
    with pytest.raises(JobError) as error:
        job.conclude(plan, tmp_path, agreement, Console(file=io.StringIO()), exact=False)
    for words in ("25%", "50%", "serving.min_agreement", "Anna", "serving.prompts=0"):
        assert words in str(error.value)
    proof = json.loads((tmp_path / "adapter" / "serving.json").read_text())
    assert (proof["status"], proof["identical"], proof["prompts"], proof["min_agreement"]) == ("disagreed", 1, 4, 0.5)
    assert proof["first_difference"] == {"trained": '{"PER":["Anna"]}', "served": "{}"}
    most = serving.Agreement(4, 3, ("a", "b"))
    with pytest.raises(JobError, match="100%"):
        job.conclude(plan, tmp_path, most, Console(file=io.StringIO()), exact=True)


def test_an_unproved_adapter_is_gone_on_with_by_its_own_run_alone(tmp_path, random_model):
    """A run that was killed before its proof may finish; another one must not write over the adapter."""
    plan = plan_training(tmp_path, random_model, dev=1)
    output = tmp_path / "adapter"
    write_proof(plan, "pending")
    assert not finished(str(output))
    (output / "ner_batch.json").write_text("{}")
    for status, done in (
        ("pending", False),
        ("failed", False),
        ("disagreed", False),
        ("agreed", True),
        ("skipped", True),
    ):
        write_proof(plan, status)
        assert finished(str(output)) is done, status
        if done:
            with pytest.raises(UserError, match="holds an adapter already"):
                plan_training(tmp_path, random_model, dev=1)
        else:
            assert plan_training(tmp_path, random_model, dev=1, serving={"prompts": 0}).schedule == plan.schedule
            with pytest.raises(UserError, match="holds an adapter already"):
                plan_training(tmp_path, random_model, dev=1, optimiser={"steps": 7})


@pytest.mark.engine
def test_the_comparison_is_with_the_quantization_that_will_be_served(tmp_path, random_model, random_adapter):
    """vLLM gets it: int8 weights are not for float32, and it says so; over bfloat16 they answer."""
    adapter = random_adapter(random_model, 5)
    files = {path.name: path.read_bytes() for path in Path(adapter).iterdir()}
    sections = {
        "lora": {"r": 8, "alpha": 64, "targets": ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]},
        "serving": {"prompts": 1, "quantization": "int8_per_channel_weight_only"},
    }
    with pytest.raises(UserError, match="float32 is not supported for quantization method int8"):
        serving.compare(plan_training(tmp_path, random_model, dev=1, **sections), files, gpu=False)
    base = {"model": random_model, "dtype": "bfloat16", "max_model_len": 512}
    agreement = serving.compare(plan_training(tmp_path, random_model, dev=1, base=base, **sections), files, gpu=False)
    assert agreement.prompts == 1
