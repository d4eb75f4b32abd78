"""Merging: the merged model answers as base and adapter do, and a wrong base is refused."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from s3_server import BUCKET, point_at, s3_server
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from ner_batch.adapter import AdapterManifest, model_fingerprint, save_manifest
from ner_batch.cli import app
from ner_batch.prompts import formats
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import ChatTokenizer
from ner_batch.task import Task

TASK = Task(name="t", labels={"PER": {}})


@pytest.fixture
def adapter(random_model, random_adapter):
    """An adapter of the random model with a manifest."""
    path = random_adapter(random_model, 3)
    chat = ChatTokenizer(AutoTokenizer.from_pretrained(random_model))
    manifest = AdapterManifest(
        name="a",
        format="json",
        task=TASK,
        prompt_fingerprint=PromptBuilder(formats.get("json"), TASK, chat, 512).fingerprint(),
        base_model=random_model,
        base_fingerprint=model_fingerprint(random_model),
    )
    save_manifest(path, manifest)
    return path


def test_merged_is_base_plus_adapter(adapter, random_model, tmp_path):
    """The same logits, from a folder that transformers loads alone, tokenizer and chat template included."""
    result = CliRunner().invoke(app, ["merge", adapter, str(tmp_path / "merged")])
    assert result.exit_code == 0, result.output
    ids = torch.randint(0, 300, (1, 40), generator=torch.Generator().manual_seed(0))
    both = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(random_model), adapter)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, both(ids).logits, atol=1e-4)
        assert not torch.allclose(merged(ids).logits, AutoModelForCausalLM.from_pretrained(random_model)(ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template


def test_another_base_is_refused(adapter, tiny_model, tmp_path):
    """One line, nothing written."""
    result = CliRunner().invoke(app, ["merge", adapter, str(tmp_path / "merged"), "--base", tiny_model])
    assert result.exit_code == 2
    assert "is another model" in result.stderr
    assert not (tmp_path / "merged").exists()


def test_a_folder_that_is_taken_is_refused(adapter, tmp_path):
    """Nothing is overwritten."""
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "x").write_text("x")
    result = CliRunner().invoke(app, ["merge", adapter, str(tmp_path / "merged")])
    assert result.exit_code == 2
    assert "exists" in result.stderr


def test_an_adapter_in_s3(adapter, random_model, tmp_path, monkeypatch):
    """The same merged weights; one that is not there, another base and a merged model in S3 are refused in one line."""
    with s3_server() as (endpoint, client):
        point_at(monkeypatch, endpoint)
        for path in Path(adapter).iterdir():
            client.upload_file(str(path), BUCKET, f"adapters/news/{path.name}")
        uri, merged = f"s3://{BUCKET}/adapters/news", tmp_path / "merged"

        def refusal(*arguments):
            result = CliRunner().invoke(app, ["merge", *map(str, arguments)])
            assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
            assert not list(tmp_path.iterdir())
            return result.stderr

        assert f"s3://{BUCKET}/adapters/old: no such adapter" in refusal(f"s3://{BUCKET}/adapters/old", merged)
        assert "local folder" in refusal(uri, f"s3://{BUCKET}/merged")
        monkeypatch.chdir(tmp_path)
        result = CliRunner().invoke(app, ["merge", uri, "merged"])
        assert result.exit_code == 0, result.output
    assert CliRunner().invoke(app, ["merge", adapter, str(tmp_path / "local")]).exit_code == 0
    weights = "model.safetensors"
    assert (merged / weights).read_bytes() == (tmp_path / "local" / weights).read_bytes()
