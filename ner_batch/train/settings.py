"""The training job's config. Defaults are what a LoRA of an instruction model of 1 to 9 B parameters wants."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ner_batch.config import Config, Count, FormatName, IndexKind, Positive, Share, Uri
from ner_batch.errors import UserError
from ner_batch.extraction.settings import WindowsConfig
from ner_batch.retrieval import ENCODED

Packing = Literal["auto", "none", "random", "greedy", "shared"]
ReportTo = Literal["tensorboard", "wandb", "mlflow", "none"]
LINEAR_MAPS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

# Ye et al. (2024) state a learning rate of 0.02, that of ChatGLM's prompt tuning; a hundred times what works for LoRA.
PRESETS: dict[str, dict[str, Any]] = {"ye2024": {"learning_rate": 0.02, "batch_tokens": 8 * 256, "weight_decay": 0.0}}


class BaseModelConfig(Config):
    """The base model that is adapted."""

    model: Uri
    """Local folder or hub name."""
    revision: str | None = None
    """Hub revision; pin it: the adapter remembers it."""
    chat_template: Uri | None = None
    """A Jinja file or its text, for a model that has no chat template, or in its place; it goes among the adapter's
    files, and `engine.chat_template` must name it."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """dtype of the frozen weights; auto: bfloat16 on a GPU, float32 on a CPU and with compute=float32. LoRA weights are
    float32 always."""
    compute: Literal["auto", "bfloat16", "float32"] = "auto"
    """dtype of the matrix products in training (autocast). bfloat16 takes half the time or less where the device
    computes it, and auto takes it there: on GPUs, on Intel's CPUs with AMX and AMD's with AVX-512 BF16; and wherever
    dtype=bfloat16."""
    quantization: Literal["4bit"] | None = None
    """4bit: QLoRA (Dettmers et al., 2023: NF4, double quantisation), by bitsandbytes. vLLM serves no such weights:
    `serving.quantization` says what it serves in their place."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: a third slower, a fraction of the memory."""
    max_model_len: Count = 2048
    """Tokens of prompt plus answer; a sample that is longer is left out and counted."""

    @model_validator(mode="after")
    def _weights_can_be_multiplied(self) -> Self:
        if self.dtype == "bfloat16" and self.compute == "float32":
            raise UserError("compute: float32 products take float32 weights: set dtype=auto, or compute=bfloat16")
        return self


class GoldConfig(Config):
    """Annotated examples: Parquet with id, text, entities (start, end, type)."""

    train: Uri
    """A file or a folder."""
    dev: Uri | None = None
    """Examples to choose the best checkpoint by; None: a share of train is held out."""
    dev_share: Share = 0.1
    """Held out of train where no dev is given."""


class DemonstrationsConfig(Config):
    """Retrieved examples in training prompts. A sample never sees itself or its exact duplicate."""

    kind: tuple[IndexKind, ...] = ()
    """random, lexical, sentence or entity, or several: each sample draws one, so that the adapter works with them all;
    dev prompts take the first. None: no demonstrations."""
    encoder: str | None = None
    """sentence, entity: a sentence-transformers model, for entity any Hugging Face model with token states."""
    k: dict[Annotated[int, Field(ge=0, le=64)], Positive] = Field(default={0: 0.5, 4: 0.5}, min_length=1)
    """Share of the samples by number of demonstrations; with 0 among them the adapter works without an index too."""

    @property
    def shares(self) -> dict[int, float]:
        """Of the samples by number of demonstrations."""
        return dict(self.k) if self.kind else {0: 1.0}

    @field_validator("kind", mode="before", json_schema_input_type=IndexKind | tuple[IndexKind, ...] | None)
    @classmethod
    def _several(cls, value: Any) -> Any:
        """One kind may stand without brackets."""
        return () if value is None else (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _an_encoder_has_a_use(self) -> Self:
        if self.encoder and self.kind and set(self.kind).isdisjoint(ENCODED):
            raise UserError(f"encoder: kind {', '.join(self.kind)} has none; remove it or add sentence or entity")
        return self


class LoraSettings(Config):
    """The adapter's size (Hu et al., 2022)."""

    r: Annotated[int, Field(ge=1, le=512)] = 16
    """The rank; vLLM serves 512 at most."""
    alpha: Count = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of each adapted map's input. On a CPU it costs a quarter of the speed (SmolLM2-135M, two cores: 234 tokens/s, not
    321), for torch draws its random numbers one after the other."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = LINEAR_MAPS
    """Names of the linear maps that are adapted."""
    init: str | None = None
    """An adapter folder to go on from, for more gold or another task; r, alpha and targets must be its own."""


class OptimiserConfig(Config):
    """AdamW with linear warm-up and a cosine to zero."""

    preset: Literal["ye2024"] | None = None
    """ye2024: the paper's learning rate of 0.02 and batch of 8 x 256 tokens; fields given beside it win."""
    learning_rate: Positive = 2e-4
    steps: Count | None = None
    """Optimiser steps; None: as many as `epochs` take."""
    epochs: Positive = 3.0
    batch_tokens: Count = 8192
    """Tokens of one optimiser step over all workers; packs are accumulated up to it."""
    warmup: Share = 0.03
    """Share of the steps until the full learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Positive = 1.0
    """Largest norm of the gradient."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") in PRESETS:
            return {**PRESETS[values["preset"]], **values}
        return values


class PackingConfig(Config):
    """Several samples in one row (Wang et al., 2025, "Packing Analysis")."""

    kind: Packing = "auto"
    """none: a padded row per sample. random: all samples one after another, cut every `tokens`. greedy: best fit
    decreasing, never splits. shared: greedy, and what the prompts have in common at their beginning is there once.
    auto: shared (greedy where unmasked), in rows and steps so small that an epoch has some 20 steps or more."""
    masked: bool = True
    """Samples of a pack do not see each other and positions restart. False: the paper's variant, where they do."""
    tokens: Count = 2048
    """Tokens of a row."""


class AugmentationConfig(Config):
    """More training text out of the same gold."""

    swapped: Share = 0.0
    """Share of mentions replaced by another mention of their type (entity swapping), anew in every epoch."""
    negatives: Share = 1.0
    """Per-type formats (mrc, gpt-ner): share of the prompts whose answer is "none" that are kept."""
    verification: Annotated[float, Field(ge=0)] = 0.0
    """Verification questions (is this an entity of that type?) per example that has an entity, half of them true.

    The others are about near misses and, half of them at most, about words of examples that have none. With as many
    demonstrations as the example's other prompts have (`demonstrations.k`)."""


class EvaluationConfig(Config):
    """Answers generated for dev examples; the checkpoint with the best strict span F1 becomes the adapter."""

    every: Count | None = None
    """Steps between evaluations; None: five times in a run. The last step is evaluated too."""
    examples: Count = 200
    """Dev examples that are answered."""
    patience: Count | None = None
    """Evaluations without a better F1 before training ends; None: train to the end."""


class RunConfig(Config):
    """How Ray Train runs it."""

    name: str = "train"
    """The same name and storage go on where a killed run stopped."""
    storage: Uri = "runs"
    """Folder for checkpoints and logs; local or s3://. Several nodes need a shared one."""
    workers: Count = 1
    gpu: bool | None = None
    """None: a GPU per worker if the cluster has one, or is to have some (vLLM's build for CUDA is installed)."""
    cpus_per_worker: Positive | None = None
    """CPUs, and threads, of a worker. None: this machine's, shared out; 1 beside a GPU, and in a cluster."""
    checkpoint_every: Count | None = None
    """Steps between checkpoints; None: five times in a run, and every 50 steps at least."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """Killed workers that are made good before the run gives up; -1: any number."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    report_to: ReportTo = "tensorboard"
    address: str | None = None
    """Ray cluster to join; None: RAY_ADDRESS if set, else a local one."""


class ServingConfig(Config):
    """The last step: vLLM loads the adapter, and its greedy answers are compared with the trained model's."""

    prompts: Annotated[int, Field(ge=0)] = 32
    """Dev prompts to compare; 0 leaves the comparison out."""
    min_agreement: Share = 0.8
    """Share of identical answers below which the job fails. In float32 on a CPU all must be identical."""
    quantization: str | None = None
    """As `engine.quantization` of the jobs that will use the adapter (fp8, say), so that what they answer is compared;
    None: the base as it is stored."""


class TrainConfig(Config):
    """`ner-batch train`."""

    base: BaseModelConfig
    task: Uri
    """Task file; its labels and definitions go into every prompt."""
    gold: GoldConfig
    output: Uri
    """Folder of the adapter."""
    format: FormatName = "json"
    windows: WindowsConfig = WindowsConfig()
    demonstrations: DemonstrationsConfig = DemonstrationsConfig()
    lora: LoraSettings = LoraSettings()
    optimiser: OptimiserConfig = OptimiserConfig()
    packing: PackingConfig = PackingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    run: RunConfig = RunConfig()
    serving: ServingConfig = ServingConfig()

    @model_validator(mode="after")
    def _packing_is_possible(self) -> Self:
        kind, tokens, longest = self.packing.kind, self.packing.tokens, self.base.max_model_len
        if kind == "shared" and not self.packing.masked:
            raise UserError("packing.masked: false is for random and greedy; with a shared prefix it has no meaning")
        if kind not in {"none", "random"} and tokens < longest:
            reason = "a pack must hold the longest sample"
            raise UserError(f"packing.tokens={tokens} is less than base.max_model_len={longest}: {reason}")
        return self
