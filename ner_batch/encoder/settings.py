"""The encoder job's config. Defaults are those of unsupervised SimCSE (Gao et al., 2021, appendix A) on a BERT base."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ner_batch.config import Config, Count, Positive, Share, Uri


class BaseEncoderConfig(Config):
    """The encoder that training starts from."""

    model: Uri
    """Local folder or hub name: a sentence-transformers model, or a plain Hugging Face encoder."""
    revision: str | None = None
    """Hub revision; pin it for runs that must be repeatable."""
    pooling: Literal["mean", "cls"] | None = None
    """Vectors of tokens to one of a sentence; None: mean. For a plain encoder only, others have their own."""
    dropout: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Probability of dropout in training, which is the only difference in a pair; None: the encoder's own."""
    compute: Literal["bfloat16", "float32"] | None = None
    """Numbers of the matrix products (autocast); None: bfloat16 on a GPU, float32 on a CPU."""


class TextConfig(Config):
    """Raw text, cut into sentences."""

    path: Uri
    """A Parquet file, a folder (read recursively) or a glob; local or s3://."""
    text_column: str = "text"
    """The column that is read; strings."""
    sentences: Annotated[int, Field(ge=4)] = 1_000_000
    """Distinct sentences to train on, drawn at random; the memory it takes is about that of twice as many."""
    bytes: Count = 2_000_000_000
    """Text that is looked through for them, at most about; of a larger corpus a random part."""
    max_tokens: Count = 64
    """Longer sentences are cut at their best places."""


class OptimiserConfig(Config):
    """InfoNCE over cosines, AdamW, linear warm-up and a line to zero."""

    learning_rate: Positive = 3e-5
    batch: Annotated[int, Field(ge=2)] = 64
    """Sentences of a step: each one's negatives are all others."""
    mini_batch: Count | None = None
    """Sentences on the device at once, for a large batch on a small GPU (GradCache, Luyu Gao et al., 2021): the same
    gradient at about half the speed; None: the whole batch."""
    epochs: Positive = 1.0
    steps: Count | None = None
    """Optimiser steps; None: as many as `epochs` take."""
    temperature: Positive = 0.05
    """Cosines are divided by it."""
    warmup: Share = 0.05
    """Share of the steps until the full learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of matrices, not of biases and norms."""
    clip: Positive = 1.0
    """Largest norm of the gradient."""


class EncoderRunConfig(Config):
    """How it runs: in one process, on one GPU if there is one."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """The same seed, text and machine give the same bytes on a CPU (with the same number of threads)."""
    device: str | None = None
    """torch's name of it (cpu, cuda:1); None: a GPU where there is one."""
    held_out: Share = 0.1
    """Share of the sentences that is kept for the scores before and after, 1,000 at most."""
    checkpoint_every: Count = 500
    """Steps between checkpoints (OUTPUT.checkpoint, gone when the encoder is written)."""


class TrainEncoderConfig(Config):
    """`ner-batch train-encoder`."""

    base: BaseEncoderConfig
    input: TextConfig
    output: Uri
    """Local folder of the encoder, in the form of sentence-transformers."""
    optimiser: OptimiserConfig = OptimiserConfig()
    run: EncoderRunConfig = EncoderRunConfig()
