"""What becomes of a row of many windows, or of many answers: its status, and the reason, which counts them."""

import pytest

from ner_batch.data import Entity, Parsed, Status
from ner_batch.extraction.predictor import merge, outcome
from ner_batch.extraction.reader import Reading
from ner_batch.text.windows import Window

REASONS = {
    Status.OK: None,
    Status.TRUNCATED: "cut",
    Status.MALFORMED: "not in the format",
    Status.TOO_LONG: "does not fit",
    Status.FAILED: "the engine",
}
OK, TRUNCATED, MALFORMED, TOO_LONG, FAILED = REASONS


def reading(status, *entities):
    """An answer of this status."""
    return Reading(Parsed(entities, (), status, faithful=status is OK), REASONS[status], 1, 1)


def of_windows(*statuses):
    """The outcome of a row with one answer a window."""
    return outcome([[reading(status)] for status in statuses])


@pytest.mark.parametrize(
    ("windows", "status", "error"),
    [
        ([OK], OK, None),
        ([OK] * 400, OK, None),
        ([MALFORMED], MALFORMED, "not in the format"),
        ([MALFORMED, *[OK] * 1299], Status.PARTIAL, "1 of 1,300 windows: not in the format"),
        ([TOO_LONG, TOO_LONG], TOO_LONG, "2 of 2 windows: does not fit"),
        ([MALFORMED, TRUNCATED], MALFORMED, "1 of 2 windows: not in the format; 1 of 2 windows: cut"),
        (
            [OK, TRUNCATED, MALFORMED, TRUNCATED],
            Status.PARTIAL,
            "1 of 4 windows: not in the format; 2 of 4 windows: cut",
        ),
        ([OK, FAILED, OK], FAILED, "1 of 3 windows: the engine"),
    ],
)
def test_one_bad_window_does_not_make_a_book_malformed(windows, status, error):
    """Some windows: `partial`, or `failed`, which is done again by default. All of them: the worst. The reason counts."""
    assert of_windows(*windows) == (status, error)


def test_answers_of_one_window_are_counted_where_a_window_has_several():
    """`mrc` asks about every type: one answer that cannot be read is one of many. Of many windows, windows are counted."""
    assert outcome([[reading(OK), reading(MALFORMED), reading(OK)]]) == (
        Status.PARTIAL,
        "1 of 3 answers: not in the format",
    )
    two_of_three = [reading(MALFORMED), reading(OK), reading(MALFORMED)]
    assert outcome([two_of_three] * 2) == (
        Status.PARTIAL,
        "2 of 2 windows: not in the format",
    )  # not worse for being longer
    assert outcome([two_of_three, [reading(OK)] * 3]) == (Status.PARTIAL, "1 of 2 windows: not in the format")


def test_entities_of_the_good_windows_stand():
    """In their places of the whole text, with the tokens of all windows."""
    texts = ["", "Anna met\nBob met\nCarl"]
    cut = [Window(1, 0, "Anna met"), Window(1, 9, "Bob met"), Window(1, 17, "Carl")]
    readings = [
        [reading(OK, Entity(0, 4, "PER", "Anna"))],
        [reading(MALFORMED)],
        [reading(OK, Entity(0, 4, "PER", "Carl"))],
    ]
    empty, row = merge(texts, cut, readings)
    assert empty.status is Status.EMPTY
    assert [(e.start, e.end, e.text) for e in row.entities] == [(0, 4, "Anna"), (17, 21, "Carl")]
    assert (row.status, row.error) == (Status.PARTIAL, "1 of 3 windows: not in the format")
    assert (row.prompt_tokens, row.completion_tokens) == (3, 3)
