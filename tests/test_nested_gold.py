"""Nested gold, written as answers and read back: what each format can represent of GENIA and GUM, and that it is what comes back.

`pytest -s tests/test_nested_gold.py` prints the shares that the README has.
"""

from collections.abc import Sequence

import pytest
from real_data import real_file

from ner_batch.data import Entity, Example, Status, clean
from ner_batch.evaluate.metrics import score
from ner_batch.io.examples import read_examples
from ner_batch.prompts.formats import NAMES, Format, get
from ner_batch.task import Task

SETS = {
    "GENIA": ("genia_devtest", "dev", "test"),
    "GUM": ("gum_named", "dev", "test", "test2"),
    "Wikinews": ("slice:gum_wikinews", "test"),
    "WNUT": ("slice:wnut17", "dev"),
    "NCBI": ("slice:ncbi_disease", "test"),
}
MEASURED = {
    ("GENIA", "json"): (10850, 1196),
    ("GENIA", "mrc"): (10840, 1196),
    ("GENIA", "gpt-ner"): (10239, 569),
    ("GENIA", "inline"): (9670, 0),
    ("GUM", "json"): (3154, 569),
    ("GUM", "mrc"): (3152, 569),
    ("GUM", "gpt-ner"): (2893, 306),
    ("GUM", "inline"): (2587, 0),
    ("Wikinews", "json"): (168, 45),
    ("Wikinews", "mrc"): (168, 45),
    ("Wikinews", "gpt-ner"): (142, 19),
    ("Wikinews", "inline"): (123, 0),
    **{("WNUT", name): (78, 0) for name in NAMES},
    **{("NCBI", name): (76, 0) for name in NAMES},
}
"""Entities represented, of 10,871 in GENIA, 3,158 in GUM, 168 in Wikinews, all in the flat sets; and nested ones among them, of 1,201, 571 and 45: fewer is a loss, more is news."""


@pytest.fixture(scope="module", params=SETS)
def gold(request: pytest.FixtureRequest) -> tuple[str, list[Example]]:
    """The name of a set, and its dev and test examples as the model would see them."""
    folder, *splits = SETS[request.param]
    files = [real_file(f"{folder}/{split}.parquet") for split in splits]
    found = [example for file in files for example in read_examples(str(file))]
    assert all(clean(example.text) == example.text for example in found)
    return request.param, found


def there_and_back(form: Format, example: Example, task: Task) -> list[Entity]:
    """What is read from the answers that gold makes; every answer must be sound."""
    back: list[Entity] = []
    for labels in form.groups(task):
        answer = form.answer(example.text, example.entities, labels, task)
        parsed = form.parse(answer, example.text, labels, task)
        assert (parsed.status, parsed.ungrounded, parsed.faithful) == (Status.OK, (), True)
        back += parsed.entities
    return back


def overlapping(entity: Entity, others: Sequence[Entity]) -> list[Entity]:
    """The others that share a character with it."""
    return [o for o in others if o != entity and o.start < entity.end and entity.start < o.end]


def is_nested(entity: Entity, others: Sequence[Entity]) -> bool:
    """Inside another, or the same span of another type."""
    return any(o.start <= entity.start and entity.end <= o.end for o in overlapping(entity, others))


def must_be_represented(name: str, example: Example) -> list[Entity]:
    """What the format's docstring promises without any condition on how the text goes on.

    Marks have places: ``inline`` says whatever overlaps nothing, ``gpt-ner`` whatever overlaps nothing of its type. Lists
    name strings: a string that the text has once has one place, nested or not.
    """
    entities, text = example.entities, example.text
    if name == "inline":
        return [e for e in entities if not overlapping(e, entities)]
    if name == "gpt-ner":
        return [e for e in entities if not any(o.type == e.type for o in overlapping(e, entities))]
    return [e for e in entities if text.count(e.text) == 1]


@pytest.mark.parametrize("name", NAMES)
def test_all_that_a_format_can_say_comes_back(gold: tuple[str, list[Example]], name: str) -> None:
    """Strict F1 1.0 over the representable, nothing besides; the share of all gold, and of the nested, is the one measured."""
    which, examples = gold
    form, task = get(name), Task(name="gold", labels=sorted({e.type for x in examples for e in x.entities}))
    back = [there_and_back(form, example, task) for example in examples]
    representable = [form.representable(example.text, example.entities) for example in examples]
    micro = score(representable, back).micro
    assert (micro.precision, micro.recall, micro.f1) == (1.0, 1.0, 1.0)

    whole = score([example.entities for example in examples], back).micro
    nested = [[e for e in x.entities if is_nested(e, x.entities)] for x in examples]
    inner = [sum(e in whole_back for e in row) for row, whole_back in zip(nested, map(set, back), strict=True)]
    counts = (sum(map(len, back)), sum(inner))
    total = (sum(len(x.entities) for x in examples), sum(map(len, nested)))
    shares = [f"{100 * part / max(all_, 1):.1f} %" for part, all_ in zip(counts, total, strict=True)]
    print(
        f"\n{which} {name}: {counts[0]:,} of {total[0]:,} ({shares[0]}), nested {counts[1]:,} of {total[1]:,}",
        shares[1],
    )
    assert whole.precision == 1.0
    promised = [(e, entities) for x, entities in zip(examples, back, strict=True) for e in must_be_represented(name, x)]
    assert [e for e, entities in promised if e not in entities] == []
    assert counts == MEASURED[which, name]
