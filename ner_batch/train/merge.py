"""An adapter added into its base model's weights: a plain model folder, for engines and formats that know no LoRA."""

from __future__ import annotations

from pathlib import Path

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from ner_batch import adapter as adapters
from ner_batch.errors import UserError, first_line


def merge(path: str | Path, folder: str | Path, base: str | None = None) -> None:
    """Write ``base`` (by default the one the adapter names) with the adapter merged in, and its tokenizer, to a folder.

    The adapter is a local folder or lies in S3; what is written is local. The weights keep the base's dtype; the merge
    itself is done in float32, so bfloat16 is rounded once.

    Raises:
        UserError: one line: no such adapter, another base than it was trained on, or a folder that is taken.
    """
    if "://" in str(folder):
        raise UserError(f"{folder}: the merged model is written to a local folder")
    out = Path(folder)
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{out}: exists: name another folder, or remove it")
    adapter = adapters.load(path)
    trained = adapter.manifest
    name = base or (trained.base_model if trained else None)
    if name is None:
        raise UserError(f"{adapter.uri}: carries no ner_batch.json: name its base model with --base")
    revision = trained.base_revision if trained and not Path(name).is_dir() else None
    if trained and adapters.model_fingerprint(name, revision) != trained.base_fingerprint:
        raise UserError(f"{adapter.uri}: was trained on {trained.base_model}, {name} is another model")
    try:
        model = AutoModelForCausalLM.from_pretrained(name, revision=revision)
    except OSError as error:
        raise UserError(f"base model {name}: {first_line(error)}: say where it lies with --base") from None
    dtype = model.dtype
    merged = PeftModel.from_pretrained(model.float(), str(adapter.path)).merge_and_unload()
    merged.to(dtype).save_pretrained(str(out))
    AutoTokenizer.from_pretrained(name, revision=revision).save_pretrained(str(out))
