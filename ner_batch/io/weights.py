"""What a safetensors file holds, from its header of a few kB: names and shapes, and whether the file is all there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ner_batch.errors import UserError

Shape = tuple[int, ...]

_MAX_HEADER = 100_000_000  # bytes; the format's own limit
_LORA = re.compile(r"base_model\.model\.(?P<module>.+)\.(?P<part>lora_[AB])\.weight")
_LAYER = re.compile(r"model\.layers\.([0-9]+)\.")
_POINTER = b"version https://git-lfs"
_WRAPPER = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")  # torch's, while it trains
_EMBEDDINGS = re.compile(r".*\.(?:embed_tokens|lm_head)\.(?:base_layer\.)?weight")


def read_shapes(path: Path) -> dict[str, Shape]:
    """The shapes of a file's tensors by name.

    Raises:
        UserError: it is a pointer of Git LFS, not safetensors, or shorter than its header says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if (start + file.read(len(_POINTER) - 8)).startswith(_POINTER):
            raise UserError(
                f"{path}: a pointer of Git LFS, not the weights: `git lfs pull`, or download the file itself"
            )
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, _MAX_HEADER):
            raise UserError(f"{path}: not safetensors, or cut off: download it again ({size:,} bytes are here)")
        file.seek(8)
        try:
            header = {name: about for name, about in json.loads(file.read(length)).items() if name != "__metadata__"}
            shapes = {name: tuple(map(int, about["shape"])) for name, about in header.items()}
            end = max((int(about["data_offsets"][1]) for about in header.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise UserError(f"{path}: not safetensors: its header cannot be read; download it again") from None
    if 8 + length + end > size:
        raise UserError(f"{path}: cut off: {size:,} of {8 + length + end:,} bytes are here; download it again")
    return shapes


def model_shapes(folder: Path) -> dict[str, Shape]:
    """The shapes of all tensors of a model folder; none where its weights are no safetensors.

    Raises:
        UserError: a file is broken, one that the index names is missing, or there are only pickles.
    """
    index = folder / "model.safetensors.index.json"
    files = set(folder.glob("*.safetensors")) - set(folder.glob("consolidated*"))  # Mistral's own names for the same
    if index.is_file():
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{index}: not an index of weights; download it again") from None
        if missing := sorted(name for name in named if not (folder / name).is_file()):
            raise UserError(
                f"{folder}: {', '.join(missing[:3])} of {len(named)} weight files are missing; download them"
            )
        files = {folder / name for name in named}
    for file in folder.glob("*.bin"):
        with file.open("rb") as stream:
            if stream.read(len(_POINTER)) == _POINTER:
                raise UserError(f"{file}: a pointer of Git LFS, not the weights: `git lfs pull`")
    if not files and (pickled := sorted(folder.glob("pytorch_model*.bin"))):
        raise UserError(
            f"{pickled[0]}: a pickle, which can run code when it is loaded: take a copy in safetensors, or write one "
            "with transformers' save_pretrained if you trust it"
        )
    return {name: shape for file in sorted(files) for name, shape in read_shapes(file).items()}


def config_problems(config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> Iterator[str]:
    """Where a model's config.json and its weights are of different models, by what nearly all decoders name alike.

    vLLM cuts weights that are wider than its config says, without a word, and answers.
    """
    embeddings = shapes.get("model.embed_tokens.weight")
    width = config.get("hidden_size")
    if embeddings and width and embeddings[-1] != width:
        yield f"config.json has hidden_size={width}, the embeddings are {embeddings[-1]} wide"
    layers = {int(match[1]) for name in shapes if (match := _LAYER.match(name))}
    count = config.get("num_hidden_layers")
    if layers and count and not set(range(count)) <= layers:  # more there may be: for predicting several tokens
        yield f"config.json has num_hidden_layers={count}, the weights are of {len(layers)} layers"
    inner = config.get("intermediate_size")
    dense = shapes.get("model.layers.0.mlp.gate_proj.weight")
    experts = any(config.get(name) for name in ("num_experts", "num_local_experts", "n_routed_experts"))
    if dense and inner and not experts and len(dense) == 2 and dense[1] > 1 and dense[0] != inner:
        yield f"config.json has intermediate_size={inner}, the weights are {dense[0]} wide there"


def lora_problems(lora: Mapping[str, Shape], rank: int, base: Mapping[str, Shape]) -> Iterator[str]:
    """Why an engine would not serve these LoRA weights on that base, or serve the bare base in their name.

    PEFT's names are ``base_model.model.MODULE.lora_A.weight`` (rank, in) and ``...lora_B.weight`` (out, rank). ``base``
    may be empty where it is not at hand.
    """
    modules: dict[str, dict[str, Shape]] = {}
    for name, shape in lora.items():
        match = _LORA.fullmatch(name)
        if match and len(shape) == 2 and not _WRAPPER.search(name):
            modules.setdefault(match["module"], {})[match["part"]] = shape
        else:
            yield f"holds {name}: {_why_not_served(name, shape)}"
    if not modules:
        yield "holds no weights"
    for module, parts in sorted(modules.items()):
        if len(parts) < 2:
            yield f"holds {', '.join(parts)} of {module} without its partner"
            continue
        (a, inner), (outer, b) = parts["lora_A"], parts["lora_B"]
        if (a, b) != (rank, rank):
            yield f"is of rank {a} at {module}, and its config says r={rank}"
        tied = base.get("model.embed_tokens.weight") if module == "lm_head" else None
        # Of Gemma 3 and others with a vision part transformers turned the names round in 4.52; vLLM turns them back.
        older = re.sub(r"\Amodel\.language_model\.", "language_model.model.", module)
        weight = base.get(f"{module}.weight", base.get(f"{older}.weight", tied))
        if weight and len(weight) == 2 and weight[1] > 1 and weight != (outer, inner):  # one column: packed to 4 bits
            yield f"maps {inner} to {outer} numbers at {module}, where the base maps {weight[1]} to {weight[0]}"
        if base and not weight and not any(name.startswith((f"{module}.", f"{older}.")) for name in base):
            yield f"changes {module}, which the base does not have: it was trained on another model, or in a wrapper"


def _why_not_served(name: str, shape: Shape) -> str:
    """What is wrong with a tensor that is no LoRA matrix, and what helps."""
    if 0 in shape:
        return "it is empty, a process's share of DeepSpeed's ZeRO-3: save the adapter with its weights gathered"
    if wrapper := _WRAPPER.search(name):
        return (
            f"a wrapper of torch.compile or FSDP is in the name, so nobody finds it: take {wrapper[0]} out of the names"
        )
    if _EMBEDDINGS.fullmatch(name):
        return (
            "PEFT saves embeddings along where the vocabulary has grown or they are adapted: if they are the base's, "
            "save with save_embedding_layers=False; else merge the adapter with PEFT's merge_and_unload"
        )
    return "only LoRA's A and B of linear maps can be served"
