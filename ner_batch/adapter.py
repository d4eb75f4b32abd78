"""The adapter directory: PEFT's files and, beside them, ``ner_batch.json``: what the weights were trained for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ner_batch.config import explain
from ner_batch.errors import UserError
from ner_batch.io import copies, storage, weights
from ner_batch.task import Task

MANIFEST = "ner_batch.json"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
# Fields of PEFT's config that plain LoRA has, and those that decide nothing once it is trained. Any other field that is
# not empty means something that vLLM or a merge would pass over without a word.
_PLAIN = frozenset({"peft_type", "r", "lora_alpha", "target_modules", "use_rslora", "init_lora_weights"})
_WITHOUT_EFFECT = frozenset(
    {
        "base_model_name_or_path",
        "revision",
        "task_type",
        "inference_mode",
        "auto_mapping",
        "peft_version",
        "lora_dropout",
    }
    | {
        "layers_to_transform",
        "layers_pattern",
        "exclude_modules",
        "megatron_config",
        "megatron_core",
        "qalora_group_size",
    }
    | {"loftq_config", "eva_config", "runtime_config"}
)
_OWN_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initialisations that change the base's weights too

# Beside the weights, what decides the token ids of a prompt and how the model reads them.
_MODEL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt")
CHAT_TEMPLATE = "chat_template.jinja"
"""In an adapter: the chat template it was trained with, where that is not the base's own."""
_CHAT_FILES = (CHAT_TEMPLATE, "chat_template.json")
_SAMPLES, _SAMPLE_BYTES = 64, 32 * 1024


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Calibration(_Frozen):
    """``score = sigmoid(slope * logit(p) + offset)``, fitted on ``entities`` predicted for dev."""

    slope: float
    offset: float
    entities: int


class Verification(_Frozen):
    """The threshold for P(yes) that is best for predictions on dev; AUROC over ``claims``, half of them near misses."""

    threshold: float
    auroc: float
    claims: int


class AdapterManifest(_Frozen):
    """What an adapter was trained for; the content of ``ner_batch.json``."""

    name: str
    format: str
    task: Task
    prompt_fingerprint: str
    base_model: str
    base_revision: str | None = None
    base_fingerprint: str
    retrieval: tuple[str, ...] = ("none",)
    """Kinds of index its demonstrations came from, and "none" where it was trained without demonstrations too."""
    k: int = 0
    """Demonstrations per training prompt. Informational: another k is no contradiction."""
    training_data: str = ""
    """Digest of the training examples."""
    scores: dict[str, float] = {}
    calibration: Calibration | None = None
    """Of ``score``; None: the model's own probability."""
    verification: Verification | None = None
    """None: not trained on verification questions."""
    versions: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter at ``uri``; ``path`` is local: of an adapter in S3 it is the copy's."""

    path: Path
    uri: str
    name: str
    rank: int
    digest: str  # changes with the weights and PEFT's config
    manifest: AdapterManifest | None  # None: not trained here, so nothing is known about its prompt
    targets: tuple[str, ...] | None  # sorted last parts of the adapted layers' names; None: PEFT has a pattern for them


def served_rank(rank: int) -> int:
    """The smallest rank that vLLM makes room for and that holds ``rank``, which is 512 at most."""
    return next(size for size in (1, 8, 16, 32, 64, 128, 256, 320, 512) if size >= rank)


def save_manifest(path: str | Path, manifest: AdapterManifest) -> None:
    """Write ``ner_batch.json`` into the adapter directory ``path``, which must exist."""
    storage.write_json(str(Path(path) / MANIFEST), manifest.model_dump(mode="json"))


def load(path: str | Path) -> Adapter:
    """Read an adapter directory, local or ``s3://``, without loading its weights: as long as reading the files once.

    A UserError, one line, where there is none, files are broken, or the engine cannot serve an adapter of that kind.
    """
    uri = str(path)
    if "://" not in uri:
        return _load(Path(path).expanduser(), uri)
    if storage.file_type(uri) != "directory":
        raise UserError(f"{uri}: no such adapter directory")
    folder = copies.fetched(uri)
    try:
        return _load(Path(folder), uri)
    except UserError as error:
        raise UserError(str(error).replace(folder, uri)) from None


def _load(folder: Path, uri: str) -> Adapter:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such adapter directory")
    config = _read_json(folder / CONFIG, "write it with PEFT's save_pretrained")
    rank = _servable_rank(config, folder / CONFIG)
    file = folder / WEIGHTS
    if not file.is_file():
        raise UserError(f"{folder}: no {WEIGHTS}: save the adapter with PEFT's save_pretrained (pickles are not read)")
    if problem := next(weights.lora_problems(weights.read_shapes(file), rank, {}), None):
        raise UserError(f"{file}: {problem}")
    manifest, place = None, folder / MANIFEST
    if place.exists():
        try:
            manifest = AdapterManifest.model_validate(_read_json(place, "restore it from the training run"))
        except ValidationError as error:
            raise UserError(f"{place}: {'; '.join(explain(AdapterManifest, error))}") from None
    name = manifest.name if manifest else folder.resolve().name
    modules = config.get("target_modules")
    targets = tuple(sorted({m.rpartition(".")[2] for m in modules})) if isinstance(modules, list) else None
    return Adapter(folder, uri, name, rank, _digest(folder / CONFIG, file), manifest, targets)


def _servable_rank(config: dict[str, Any], place: Path) -> int:
    """The rank in PEFT's config, which must describe a LoRA that vLLM takes. Of patterns it would not say a word."""
    if config.get("peft_type") != "LORA":
        raise UserError(f"{place}: peft_type is {config.get('peft_type')!r}: only LORA adapters can be served")
    for name, value in config.items():
        if name not in _PLAIN | _WITHOUT_EFFECT and value not in (None, False, "none", [], {}):
            raise UserError(
                f"{place}: {name} is {value!r}: vLLM serves plain LoRA only; train without it, or name the model that "
                "PEFT's merge_and_unload makes of base and adapter"
            )
    start = str(config.get("init_lora_weights")).lower()
    if start.startswith(_OWN_BASE):
        raise UserError(
            f"{place}: init_lora_weights is {start!r}, which changed the base too: convert the adapter with PEFT's "
            "save_pretrained(path_initial_model_for_weight_conversion=...)"
        )
    rank = config.get("r")
    if not isinstance(rank, int) or not 1 <= rank <= 512:
        raise UserError(f"{place}: r is {rank!r}: expected the LoRA rank, 1 to 512 (vLLM serves no more)")
    return rank


def _read_json(path: Path, remedy: str) -> dict[str, Any]:
    try:
        values = storage.read_json(str(path))
    except UserError as error:
        raise UserError(f"{error}: {remedy}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object: {remedy}")
    return values


def check_base(model: str, revision: str | None = None) -> None:
    """Raises UserError where weight files of a model are missing, broken, or not those of its config.

    A local folder, or what the Hub's cache of this machine has of a name; of what is still to come nothing is known.
    """
    folder = _files_here(model, revision)
    if folder is not None:
        config = _read_json(folder / "config.json", "download it again")
        if problem := next(weights.config_problems(config, weights.model_shapes(folder)), None):
            raise UserError(f"{folder}: {problem}: files of two models")


def check_weights(
    adapter: Adapter, model: str, shapes: Mapping[str, tuple[int, ...]] | None = None, *, revision: str | None = None
) -> None:
    """Raises UserError where the weights do not belong to a base: an engine passes over what it does not know.

    The headers of the weight files tell (see :func:`check_base` for where they are), or the base's ``shapes``.
    """
    if shapes is None:
        folder = _files_here(model, revision)
        shapes = {} if folder is None else weights.model_shapes(folder)
    of_adapter = weights.read_shapes(adapter.path / WEIGHTS)
    if problem := next(weights.lora_problems(of_adapter, adapter.rank, shapes), None):
        raise UserError(f"{adapter.uri}: {problem} (base model {model})")


def _files_here(model: str, revision: str | None) -> Path | None:
    """A model's folder, or its snapshot in the Hub's cache if that has all of its weights; nothing is fetched."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import errors, try_to_load_from_cache

    try:
        config = try_to_load_from_cache(model, "config.json", revision=revision)
    except errors.HFValidationError:  # a path, or no name at all
        return None
    if not isinstance(config, str):
        return None
    snapshot = Path(config).parent
    shards = list(snapshot.glob("*-of-*.safetensors"))
    if shards and not (snapshot / "model.safetensors.index.json").is_file():
        return None
    try:
        weights.model_shapes(snapshot)
    except UserError:  # files are missing, or cut off
        return None
    return snapshot


def check(
    adapter: Adapter,
    *,
    base_model: str,
    base_fingerprint: str,
    format: str,  # noqa: A002 - as in the manifest
    task: Task,
    prompt_fingerprint: str,
    retrieval: str | None,
) -> None:
    """Compare what the adapter was trained for, where it has a manifest, with what a run would use it for.

    A UserError has every contradiction, one line each, naming both values.
    """
    trained = adapter.manifest
    if trained is None:
        return
    differences: list[tuple[str, str, str]] = []
    if trained.base_fingerprint != base_fingerprint:
        bases = f"{trained.base_model} ({trained.base_fingerprint})", f"{base_model} ({base_fingerprint})"
        differences.append(("base model", *bases))
    if trained.format != format:
        differences.append(("format", trained.format, format))
    if trained.task.digest() != task.digest():
        theirs, ours = (f"{t.name!r} [{', '.join(t.names)}] ({t.digest()})" for t in (trained.task, task))
        differences.append(("task", theirs, ours))
    if (retrieval or "none") not in trained.retrieval:
        differences.append(("demonstrations", " or ".join(trained.retrieval), retrieval or "none"))
    # Another base, format or task makes another prompt; on its own it means that the prompt code or a template changed.
    if not differences and trained.prompt_fingerprint != prompt_fingerprint:
        differences.append(("prompt", trained.prompt_fingerprint, prompt_fingerprint))
    if differences:
        lines = [f"{w}: the adapter was trained with {theirs}, this run has {ours}" for w, theirs, ours in differences]
        raise UserError("\n".join(f"{adapter.uri}: {line}" for line in lines))


def model_fingerprint(model: str, revision: str | None = None) -> str:
    """A short name of exactly this base model.

    A hub name: ``name@revision``; pin the revision, for ``main`` moves. A local folder: a digest of its config,
    tokenizer, chat template and 3 MiB of every weight file (60 GB in 16 files take 0.1 s). A UserError for a path that
    is no model folder.
    """
    folder = Path(model)
    if not folder.is_dir():
        if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
            raise UserError(f"{model}: no such model folder")
        return f"{model}@{revision or 'main'}"
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: not a model folder: config.json is missing")
    digest = hashlib.sha256()
    for name in (*_MODEL_FILES, *_CHAT_FILES):
        if (folder / name).is_file():
            digest.update(f"{name}\0{_digest(folder / name)}\0".encode())
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        digest.update(f"{file.name}\0{_sampled_digest(file)}\0".encode())
    return digest.hexdigest()[:16]


def _sampled_digest(path: Path) -> str:
    """Digest of a file's size, its first 1 MiB (a safetensors header fits in it) and evenly spread pieces.

    First and last bytes alone would miss merged weights, for embeddings and norms often stay frozen.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(1 << 20))
        last = max(size - _SAMPLE_BYTES, 0)
        for piece in range(_SAMPLES):
            file.seek(last * piece // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _digest(*paths: Path) -> str:
    """SHA-256 over the names and contents of files."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return total.hexdigest()
