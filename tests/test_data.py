"""Values and schemas."""

import pickle

import pyarrow as pa
import pytest

from ner_batch.data import (
    EXAMPLES,
    PREDICTIONS,
    Completion,
    Entity,
    Example,
    Prediction,
    Status,
    Ungrounded,
    clean,
    distinct,
    predictions_of,
    predictions_table,
    worst,
)
from ner_batch.io.examples import example_from_row, examples_table

ENTITY = Entity(0, 4, "PER", "Anna", 0.5, verified=True)


def test_predictions_survive_a_table():
    """What is written is read back, nulls, empty lists and all statuses included."""
    predictions = [Prediction((ENTITY,), (Ungrounded("x", "PER", "not in text"),), s, "why", 3, 4) for s in Status]
    predictions.append(Prediction())
    table = predictions_table(predictions)
    assert table.schema == PREDICTIONS
    assert predictions_of(table) == predictions


def test_an_all_empty_table_keeps_the_schema():
    """No shard ever becomes list<null>."""
    for predictions in ([], [Prediction(status=Status.EMPTY)]):
        table = predictions_table(predictions)
        assert table.schema == PREDICTIONS
        assert pa.types.is_struct(table.schema.field("entities").type.value_type)


def test_worst_orders_statuses_by_severity():
    """One failed window makes a failed row."""
    assert worst([Status.OK, Status.FAILED, Status.TRUNCATED]) is Status.FAILED
    assert worst([Status.OK, Status.TRUNCATED]) is Status.TRUNCATED
    assert worst([]) is Status.OK


def test_clean_keeps_offsets():
    """A lone surrogate becomes one U+FFFD; everything else stays."""
    text = "a\ud800b😀\udfff"
    assert clean(text) == "a\ufffdb😀\ufffd"
    assert len(clean(text)) == len(text)
    assert clean("plain 北京") == "plain 北京"


def test_distinct_sorts_and_keeps_one_of_each_span_and_type():
    """The same span with another type is another entity; of equal ones the surest stays."""
    low, high, other = Entity(5, 6, "A", "x", 0.1), Entity(5, 6, "A", "x", 0.9), Entity(5, 6, "B", "x")
    assert distinct([other, low, high, ENTITY]) == (ENTITY, high, other)


def test_examples_survive_a_table_and_wrong_spans_are_named():
    """Gold goes out and in; a span that does not read as stated names its row."""
    example = Example("1", "Anna", (Entity(0, 4, "PER", "Anna"),))
    table = examples_table([example])
    assert table.schema == EXAMPLES
    assert example_from_row(table.to_pylist()[0]) == example
    for start, end in ((0, 3), (2, 2), (-1, 4), (0, 5)):
        row = {"id": "1", "text": "Anna", "entities": [{"start": start, "end": end, "type": "PER", "text": "Anna"}]}
        with pytest.raises(ValueError, match="row 7: entity"):
            example_from_row(row, "row 7")


@pytest.mark.parametrize("value", [ENTITY, Prediction((ENTITY,)), Example("1", "x", ()), Completion("", "stop", 1, 1)])
def test_values_pickle(value):
    """Everything that crosses Ray pickles."""
    assert pickle.loads(pickle.dumps(value)) == value
