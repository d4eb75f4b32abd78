"""Named entities from millions of documents with your own open LLM: Parquet in, Parquet out, on Ray and vLLM.

The names to build on (everything else may change between releases)::

    from ner_batch import Task, extract

    task = Task("diseases", {"Disease": "illnesses and syndromes, by name"})
    for prediction in extract(["Mutations of CFTR cause cystic fibrosis."], task, model="Qwen/Qwen3-4B-Instruct-2507"):
        print(prediction.entities)

==========  ============================================================================================================
library     :func:`extract` (texts in, predictions out, in this process), :class:`Extractor` (a model that stays
            loaded), :func:`highlight` (a text with its entities marked)
tasks       :class:`Task` and :class:`Label` (which types to find), :func:`load_task` (from a YAML file)
values      :class:`Entity` (a typed span; offsets are code points, half-open), :class:`Ungrounded` (what the model
            named and the text does not have), :class:`Prediction` (a row's outcome) with its :class:`Status`,
            :class:`Example` (an annotated text)
datasets    :func:`extract_dataset` (a Ray Dataset with entities)
settings    :class:`RecipeConfig` (what decides an answer) with its :class:`EngineConfig`, :class:`RetrievalConfig`,
            :class:`WindowsConfig`, :class:`VotesConfig`, :class:`VerifyConfig` and, for several tasks,
            :class:`TaskConfig`; :class:`JobConfig` (how Ray runs it); :class:`ExtractConfig`, a job's YAML, which
            :func:`load_config` reads
tables      :func:`read_examples` (gold from Parquet), :func:`predictions_of` (from a table that a job wrote),
            :func:`predictions_table` (to one)
scores      :func:`score_entities`: strict precision, recall and F1
errors      :class:`UserError` (what you can mend, one line each), :class:`JobError` (a job cannot go on),
            :class:`EngineDeadError` (the engine did not start, or died)
==========  ============================================================================================================

Names are loaded when they are used: ``import ner_batch`` takes milliseconds and needs neither Ray, torch nor vLLM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ner_batch.config import load as load_config
    from ner_batch.data import (
        Entity,
        Example,
        Prediction,
        Status,
        Ungrounded,
        highlight,
        predictions_of,
        predictions_table,
    )
    from ner_batch.engine.engine import EngineDeadError
    from ner_batch.engine.settings import EngineConfig
    from ner_batch.errors import JobError, UserError
    from ner_batch.evaluate.metrics import score as score_entities
    from ner_batch.extraction.api import Extractor, extract
    from ner_batch.extraction.job import extract_dataset
    from ner_batch.extraction.settings import (
        ExtractConfig,
        JobConfig,
        RecipeConfig,
        RetrievalConfig,
        TaskConfig,
        VotesConfig,
        WindowsConfig,
    )
    from ner_batch.io.examples import read_examples
    from ner_batch.task import Label, Task, load_task
    from ner_batch.verification.settings import VerifyConfig

    __version__: str

__all__ = [
    "EngineConfig",
    "EngineDeadError",
    "Entity",
    "Example",
    "ExtractConfig",
    "Extractor",
    "JobConfig",
    "JobError",
    "Label",
    "Prediction",
    "RecipeConfig",
    "RetrievalConfig",
    "Status",
    "Task",
    "TaskConfig",
    "Ungrounded",
    "UserError",
    "VerifyConfig",
    "VotesConfig",
    "WindowsConfig",
    "__version__",
    "extract",
    "extract_dataset",
    "highlight",
    "load_config",
    "load_task",
    "predictions_of",
    "predictions_table",
    "read_examples",
    "score_entities",
]

# Where each name lies. A type checker reads the imports above; test_package holds the two against each other.
_MODULES = {
    "data": (
        *("Entity", "Example", "Prediction", "Status", "Ungrounded"),
        *("highlight", "predictions_of", "predictions_table"),
    ),
    "engine.engine": ("EngineDeadError",),
    "engine.settings": ("EngineConfig",),
    "errors": ("JobError", "UserError"),
    "extraction.job": ("extract_dataset",),
    "extraction.api": ("Extractor", "extract"),
    "extraction.settings": (
        *("ExtractConfig", "JobConfig", "RecipeConfig", "RetrievalConfig"),
        *("TaskConfig", "VotesConfig", "WindowsConfig"),
    ),
    "io.examples": ("read_examples",),
    "task": ("Label", "Task", "load_task"),
    "verification.settings": ("VerifyConfig",),
}
_PLACES = {name: (module, name) for module, names in _MODULES.items() for name in names} | {
    "load_config": ("config", "load"),
    "score_entities": ("evaluate.metrics", "score"),
}


def __getattr__(name: str) -> Any:
    """A public name, imported at its first use (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("ner-batch")
    if name not in _PLACES:
        raise AttributeError(f"module 'ner_batch' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _PLACES[name]
    value = getattr(import_module(f"ner_batch.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
