"""The library: texts in, predictions out, in this process and without Ray: :func:`extract` and :class:`Extractor`.

A recipe is made of keywords as a job's is of its YAML, by the same code; a :class:`Predictor` does the rest.
"""

from __future__ import annotations

import difflib
import math
import os
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

import pyarrow as pa

from ner_batch import adapter as adapters
from ner_batch import retrieval
from ner_batch.config import Config, FormatName, validate
from ner_batch.data import Example, Prediction
from ner_batch.engine.engine import show_errors_alone
from ner_batch.engine.settings import EngineConfig
from ner_batch.errors import UserError
from ner_batch.extraction.predictor import BATCH_WINDOWS, Predictor
from ner_batch.extraction.recipe import Recipe, make_recipe
from ner_batch.extraction.settings import (
    Decoding,
    RecipeConfig,
    RetrievalConfig,
    TaskConfig,
    VotesConfig,
    WindowsConfig,
)
from ner_batch.task import Task
from ner_batch.verification.settings import VerifyConfig

StrPath = str | os.PathLike[str]
Settings = Mapping[str, Any]
"""A section as it would stand in a YAML file."""

# Where an option belongs that somebody wrote a level too high.
_SECTIONS: dict[str, type[Config]] = {
    "engine": EngineConfig,
    "retrieval": RetrievalConfig,
    "windows": WindowsConfig,
    "votes": VotesConfig,
    "verify": VerifyConfig,
}


class Options(TypedDict, total=False):
    """What may be set beside task, model and adapter: the fields of :class:`RecipeConfig`, with their defaults."""

    format: FormatName | None
    """``json``, ``inline``, ``mrc`` or ``gpt-ner``; None takes the adapter's, else json."""
    decoding: Decoding
    """``auto`` asks again under a grammar where an answer is not made of the text; ``free``, ``constrained``."""
    temperature: float
    """0, the default, is greedy."""
    score: bool
    """Fill ``Entity.score`` with the probability that the model gave the entity when it named it."""
    retrieval: RetrievalConfig | Settings
    """Demonstrations: ``k``, how many a prompt shows; ``index``, a folder of `ner-batch index`; its ``encoder``."""
    votes: VotesConfig | Settings | None
    """Answer several times and vote; ``{}`` takes the defaults."""
    verify: VerifyConfig | Settings | None
    """Ask about every entity whether it is one; ``Entity.score`` is then P(yes). ``{}`` takes the defaults."""
    windows: WindowsConfig | Settings
    """``max_tokens`` of source text in one prompt."""
    tasks: Sequence[TaskConfig | Settings]
    """Several tasks read in one pass, each with its own adapter, in the place of ``task``."""


def extract(
    texts: Iterable[str | None],
    task: Task | StrPath | None = None,
    *,
    model: StrPath | None = None,
    adapter: StrPath | None = None,
    demonstrations: Sequence[Example] | StrPath | None = None,
    engine: EngineConfig | Settings | None = None,
    **options: Unpack[Options],
) -> Iterator[Prediction]:
    """Read texts with a language model: one :class:`Prediction` for each, in order.

    The engine starts when the first prediction is asked for, and stops after the last one, or when the iterator is
    dropped. To read more texts later without loading the model again, keep an :class:`Extractor`.

    Args:
        texts: a list, a column of pandas, Polars or Arrow, or a generator of any length: it is read as predictions are
            taken, some hundred texts ahead. None, NaN and white space get the status ``empty``.
        task: which types to find, or the path of a task file. None: the adapter's own task.
        model: folder or hub name of the base model. None: the one that the adapter was trained on.
        adapter: a LoRA adapter, local or ``s3://``.
        demonstrations: annotated examples, of which every prompt shows the most similar ones (``retrieval={"k": 4}``);
            or an index of them, a folder of `ner-batch index`.
        engine: further settings of the engine, as ``{"max_model_len": 8192}``.
        options: further settings of the recipe, as ``format="inline"``, ``score=True`` or
            ``windows={"max_tokens": 256}``; see :class:`RecipeConfig`.

    Returns:
        An iterator of predictions; ``list(extract(...))`` where all are wanted at once.

    Raises:
        UserError: at the call, with a line for each problem: an unknown option, a missing file, a task that the adapter
            was not trained for, a single text in the place of a list. Later, where one of the texts is no text, or the
            engine refuses its settings.
        EngineDeadError: the engine did not start, or died. What a text itself brings about is its ``status``.

    Example:
        >>> from ner_batch import extract
        >>> texts = ["Stonehaven Group hired Petra Melado as its associate secretary!", ""]
        >>> for prediction in extract(texts, adapter="adapters/news", model="Qwen/Qwen3-4B-Instruct-2507"):
        ...     print(prediction.status, [entity.text for entity in prediction.entities])
        ok ['Stonehaven Group', 'Petra Melado', 'associate secretary']
        empty []
        >>> extract("A single text")
        Traceback (most recent call last):
        ner_batch.errors.UserError: texts: a single text, where a list of them is expected: write [text]
    """
    checked = _texts(texts)
    setup = _set_up(task, model, adapter, demonstrations, engine, options)
    return _extract(checked, setup)


class Extractor:
    """A model that stays loaded: made once, it reads texts until it is closed.

    In a ``with`` statement it is closed at the end; dropped without, when Python collects it, or at the program's end.
    Several threads may use it at once. Two engines on one GPU need ``engine={"gpu_memory_utilization": 0.45}`` each.

    Args:
        task: which types to find, or the path of a task file. None: the adapter's own task.
        model: folder or hub name of the base model. None: the one that the adapter was trained on.
        adapter: a LoRA adapter, local or ``s3://``.
        demonstrations: annotated examples, or an index of them, as for :func:`extract`.
        engine: further settings of the engine, as ``{"max_model_len": 8192}``.
        options: further settings of the recipe, as for :func:`extract`.

    Raises:
        UserError: every problem of the settings, one line each, before the engine starts; or the engine refuses them.
        EngineDeadError: the engine did not start.

    Example:
        >>> import pandas as pd
        >>> from ner_batch import Extractor, highlight, predictions_table
        >>> notes = pd.Series(["Before February 25, 1992 Pemski worked for Stonemouth Airlines.", None])
        >>> with Extractor(adapter="adapters/news", model="Qwen/Qwen3-4B-Instruct-2507", score=True) as extractor:
        ...     predictions = extractor.predict(notes)
        ...     again = list(extractor.stream(note for note in notes))
        >>> print(highlight(notes[0], predictions[0].entities))
        Before [February 25, 1992|DATE] [Pemski|PERSON] worked for [Stonemouth Airlines|ORG].
        >>> all(0.5 < entity.score < 1 for entity in predictions[0].entities)
        True
        >>> predictions_table(again)["status"].to_pylist()  # a column of an Arrow table
        ['ok', 'empty']
    """

    def __init__(
        self,
        task: Task | StrPath | None = None,
        *,
        model: StrPath | None = None,
        adapter: StrPath | None = None,
        demonstrations: Sequence[Example] | StrPath | None = None,
        engine: EngineConfig | Settings | None = None,
        **options: Unpack[Options],
    ) -> None:
        predictor = _set_up(task, model, adapter, demonstrations, engine, options).start()
        self._predictor = predictor
        # The engine's thread holds the engine, so that nothing but a finalizer would ever stop it; called at most once,
        # at the program's end too.
        self._finalizer = weakref.finalize(self, predictor.close)

    @property
    def recipe(self) -> Recipe:
        """What decides the answers, as it was checked: its ``tasks``, and the ``fingerprint`` that a job would have."""
        return self._predictor.recipe

    def predict(self, texts: Iterable[str | None]) -> list[Prediction]:
        """One prediction for each of the texts, in order.

        Raises:
            UserError: something in ``texts`` is no text, or this extractor is closed.
            EngineDeadError: the engine died. What a text itself brings about is its ``status``.
        """
        checked = list(_texts(texts))
        self._check_open()
        return self._predictor.predict(checked)

    def stream(self, texts: Iterable[str | None]) -> Iterator[Prediction]:
        """The predictions one by one, in order, while texts are read: some hundred ahead, so memory stays flat.

        Raises:
            UserError: at the call, this extractor is closed or ``texts`` are no texts; later, one of them is none.
            EngineDeadError: the engine died, or was closed meanwhile.
        """
        checked = _texts(texts)
        self._check_open()
        return _stream(self._predictor, checked)

    def close(self) -> None:
        """Stop the engine and free its memory; once is enough, twice does no harm."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        tasks = ", ".join(task.task.name for task in self.recipe.tasks)
        state = "open" if self._finalizer.alive else "closed"
        return f"<Extractor of {tasks}: {self.recipe.engine.model}, {state}>"

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise UserError("this Extractor is closed: make another one")


@dataclass(frozen=True, slots=True)
class _Setup:
    """A recipe that was checked, and where an index of demonstrations lies that only this process has."""

    recipe: Recipe
    scratch: TemporaryDirectory[str] | None

    def start(self) -> Predictor:
        """The predictor, its engine started."""
        try:
            return Predictor(self.recipe)
        finally:
            if self.scratch:
                self.scratch.cleanup()  # what is read of it is in memory, or open


def _extract(texts: Iterator[str | None], setup: _Setup) -> Iterator[Prediction]:
    with closing(setup.start()) as predictor:
        yield from _stream(predictor, texts)


def _stream(predictor: Predictor, texts: Iterator[str | None]) -> Iterator[Prediction]:
    """Predictions in order, with as many small batches in flight as the predictor has threads.

    No further text is read while the next prediction is there, so that a slow source does not hold back its results.
    """
    in_flight: deque[Future[list[Prediction]]] = deque()
    callers = ThreadPoolExecutor(predictor.threads, thread_name_prefix="texts")
    try:
        while batch := list(islice(texts, BATCH_WINDOWS)):
            in_flight.append(callers.submit(predictor.predict, batch))
            while in_flight and (len(in_flight) == predictor.threads or in_flight[0].done()):
                yield from in_flight.popleft().result()
        while in_flight:
            yield from in_flight.popleft().result()
    finally:
        callers.shutdown(wait=False, cancel_futures=True)  # what is in flight ends by itself, or with the engine


def _texts(texts: Iterable[str | None]) -> Iterator[str | None]:
    """The texts one by one. What cannot be texts at all is refused at once, a value that is none in its place.

    Raises:
        UserError: in one line.
    """
    if isinstance(texts, str | bytes):
        raise UserError("texts: a single text, where a list of them is expected: write [text]")
    if isinstance(texts, Mapping) or hasattr(texts, "columns"):
        raise UserError('texts: a table: name its column of texts, as in table["text"]')
    try:
        iterator = iter(texts)
    except TypeError:
        raise UserError(f"texts: expected a list or another iterable of texts, got {type(texts).__name__}") from None
    return (_text(value, number) for number, value in enumerate(iterator))


def _text(value: object, number: int) -> str | None:
    """A text, or None where it is missing, as pandas and Arrow have it too."""
    if isinstance(value, pa.Scalar):
        try:
            value = value.as_py()
        except UnicodeDecodeError as error:
            raise UserError(f"texts[{number}]: not UTF-8: {error.reason} at byte {error.start}") from None
    if value is None or isinstance(value, str):
        return value
    if (isinstance(value, float) and math.isnan(value)) or type(value).__name__ == "NAType":
        return None
    raise UserError(f"texts[{number}]: expected a text or None, got {type(value).__name__}")


def _set_up(
    task: Task | StrPath | None,
    model: StrPath | None,
    adapter: StrPath | None,
    demonstrations: Sequence[Example] | StrPath | None,
    engine: EngineConfig | Settings | None,
    options: Options,
) -> _Setup:
    """The recipe of an extractor's arguments.

    Raises:
        UserError: every problem found, one line each.
    """
    show_errors_alone()
    values: dict[str, Any] = dict(options)
    if unknown := [_about_unknown(name) for name in values if name not in Options.__annotations__]:
        raise UserError("\n".join(unknown))
    values["engine"] = _engine(model, adapter, engine)
    values |= {name: value for name, value in (("task", task), ("adapter", adapter)) if value is not None}
    scratch = None
    if demonstrations is not None:
        section = values.get("retrieval", {})
        section = section.model_dump(exclude_unset=True) if isinstance(section, RetrievalConfig) else dict(section)
        if section.get("index"):
            raise UserError("demonstrations: retrieval.index is given too: leave one out")
        if not isinstance(demonstrations, str | os.PathLike):
            scratch = TemporaryDirectory(prefix="ner-batch-", ignore_cleanup_errors=True)
            folder = os.path.join(scratch.name, "index")  # noqa: PTH118 - of strings, for a string
            retrieval.build(demonstrations, "lexical", folder)
            demonstrations = folder
        values["retrieval"] = section | {"index": demonstrations}
    return _Setup(make_recipe(validate(RecipeConfig, values)), scratch)


def _engine(model: StrPath | None, adapter: StrPath | None, engine: EngineConfig | Settings | None) -> dict[str, Any]:
    """The engine's section. Without a model it is the adapter's own; the recipe checks that it is the same one."""
    if isinstance(engine, EngineConfig):
        section = engine.model_dump(exclude_unset=True)
    elif engine is None or isinstance(engine, Mapping):
        section = dict(engine or {})
    else:
        raise UserError(f"engine: expected an EngineConfig or a dict of its fields, got {type(engine).__name__}")
    if model is not None:
        if section.setdefault("model", model) != model:
            raise UserError(f"model: {model}, but engine.model says {section['model']}: leave one out")
    elif "model" not in section and adapter is not None and (manifest := adapters.load(os.fspath(adapter)).manifest):
        section = {"model": manifest.base_model, "revision": manifest.base_revision} | section
    if "model" not in section:
        raise UserError("model: missing: name a local folder or a hub name")
    return section


def _about_unknown(name: str) -> str:
    """Where an option belongs, or which one was meant."""
    option_names = [*Options.__annotations__, "task", "model", "adapter", "demonstrations", "engine"]
    if section := next((key for key, kind in _SECTIONS.items() if name in kind.model_fields), None):
        return f"{name}: unknown option: it belongs to {section}: {section}={{{name!r}: ...}}"
    close = difflib.get_close_matches(name, option_names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(option_names)}"
    return f"{name}: unknown option ({hint})"
