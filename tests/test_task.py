"""Task files: defaults, shorthands, and what is refused."""

import pytest
from pydantic import ValidationError

from ner_batch.task import Task, load_task


def test_shorthands_mean_the_same_as_the_full_form():
    """`ORG: words`, `ORG:` and a list of names are all labels, in the order written."""
    full = Task(name="t", labels={"ORG": {"definition": "a company"}, "PER": {}})
    assert Task.model_validate({"name": "t", "labels": {"ORG": "a company", "PER": None}}) == full
    assert Task.model_validate({"name": "t", "labels": ["ORG", "PER"]}).names == ("ORG", "PER")


def test_missing_question_and_definition_get_a_default_in_the_tasks_language():
    """Every label has a question to ask."""
    english = Task(name="t", labels={"WORK_OF_ART": {}})
    assert "work of art" in english.question("WORK_OF_ART")
    chinese = Task(name="t", language="zh", labels={"人名": {"definition": "人的姓名"}})
    assert "人的姓名" in chinese.question("人名")
    given = Task(name="t", labels={"ORG": {"question": "Who?"}})
    assert given.question("ORG") == "Who?"


@pytest.mark.parametrize("label", ["", " ORG", "A|B", 'A"B', "[X]", "a\nb", "@@"])
def test_labels_that_would_break_answers_are_refused(label):
    """A label stands inside answers, so marks, quotes and edge spaces are out."""
    with pytest.raises(ValidationError, match="use letters"):
        Task(name="t", labels={label: {}})


def test_digest_follows_everything_prompts_are_made_of():
    """Order, definitions and guidelines change it; the same task has the same digest."""
    base = Task(name="t", labels={"A": {}, "B": {}})
    assert base.digest() == Task(name="t", labels={"A": {}, "B": {}}).digest()
    changed = [
        Task(name="t", labels={"B": {}, "A": {}}),
        Task(name="t", labels={"A": {"definition": "x"}, "B": {}}),
        Task(name="t", labels={"A": {}, "B": {}}, guidelines="none"),
        Task(name="t", language="zh", labels={"A": {}, "B": {}}),
    ]
    assert len({base.digest(), *(task.digest() for task in changed)}) == 5


def test_task_file_problems_name_file_and_field(tmp_path):
    """An unknown key anywhere is one line with `did you mean`."""
    path = tmp_path / "task.yaml"
    path.write_text("name: t\nlanguge: en\nlabels: {ORG: {definiton: a company}}\n")
    with pytest.raises(ValueError) as caught:
        load_task(str(path))
    assert sorted(str(caught.value).splitlines()) == [
        f"{path}: labels.ORG.definiton: unknown field (did you mean definition?)",
        f"{path}: languge: unknown field (did you mean language?)",
    ]


@pytest.mark.parametrize("labels", ["{NO: Norwegian, ON: Ontario, 010: a code}", "[NO, ON, 010]"])
def test_labels_are_what_is_written(tmp_path, labels):
    """Not False, True and 8."""
    path = tmp_path / "task.yaml"
    path.write_text(f"name: t\nlabels: {labels}\n")
    assert load_task(str(path)).names == ("NO", "ON", "010")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("{ORG: a company, PER: a person, ORG: a party}", "'ORG' is given twice"),
        ("[ORG, PER, ORG]", "ORG: given twice"),
        ("[ORG, null]", "stands in quotes"),
        ("{null: nothing}", "stands in quotes"),
    ],
)
def test_labels_that_are_not_clear_are_refused(tmp_path, labels, words):
    """The same one twice, or one that is no text."""
    path = tmp_path / "task.yaml"
    path.write_text(f"name: t\nlabels: {labels}\n")
    with pytest.raises(ValueError, match=words):
        load_task(str(path))
