"""Claims as demonstrations: the likest, half of them hard false ones, never about the text itself."""

import pickle
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ner_batch.data import Entity, Example
from ner_batch.demo import models
from ner_batch.retrieval.encoder import Encoder
from ner_batch.verification.examples import VerificationExample
from ner_batch.verification.pool import COINCIDENCES, Mention, Pool


def example(text, **found):
    """An example whose entities are given by type: surface."""
    entities = [Entity(text.index(s), text.index(s) + len(s), kind, s) for kind, all_ in found.items() for s in all_]
    return Example(text, text, tuple(sorted(entities)))


def asked(text, surface, kind, origin=""):
    start = text.index(surface)
    return Mention(text, Entity(start, start + len(surface), kind, surface), origin)


def said(claims):
    return [(claim.text, claim.entity.text, claim.is_true) for claim in claims]


ENGLISH = [
    example("She flew to Washington in May.", LOC=["Washington"]),
    example("He wrote to President Washington again.", PER=["Washington"]),
    example("The Washington state ferry was late.", ORG=["Washington state ferry"]),
    example("Anna lives in Paris now.", PER=["Anna"], LOC=["Paris"]),
    example("Bob left Rome early.", PER=["Bob"], LOC=["Rome"]),
    example("It rained."),
]
CHINESE = [
    example("他在北京大学任教。", ORG=["北京大学"]),
    example("她昨天飞往北京开会。", LOC=["北京"]),
    example("北京烤鸭很有名。", FOOD=["北京烤鸭"]),
    example("王明住在上海。", PER=["王明"], LOC=["上海"]),
]


def test_the_same_words_come_first_true_and_false():
    """A place is shown beside the person of that name and beside words that are no entity by themselves."""
    pool = Pool(ENGLISH)
    ((far, near),) = pool.nearest([asked("They flew to Washington.", "Washington", "LOC")], 2)
    assert said([near]) == [("She flew to Washington in May.", "Washington", True)]
    assert (far.entity.text, far.is_true) == ("Washington", False)
    assert {far.entity.type, near.entity.type} == {"LOC"}
    (four,) = pool.nearest([asked("They flew to Washington.", "Washington", "LOC")], 4)
    hard = {"He wrote to President Washington again.", "The Washington state ferry was late."}
    assert {claim.text for claim in four if not claim.is_true} == hard
    assert {claim.entity.text for claim in four if not claim.is_true} == {"Washington"}
    assert sum(claim.is_true for claim in four) == 2


def test_chinese_words_inside_longer_names_are_false_claims():
    """北京 is no place in 北京大学 or 北京烤鸭."""
    ((*false, near),) = Pool(CHINESE).nearest([asked("我们飞往北京旅游。", "北京", "LOC")], 3)
    assert said([near]) == [("她昨天飞往北京开会。", "北京", True)]
    assert all(claim.entity.text == "北京" for claim in false if not claim.is_true)
    assert any(not claim.is_true for claim in false)


def test_a_moved_edge_is_a_false_claim():
    """Half of a name finds the sentence where half of it was made a claim."""
    pool = Pool([example("He joined Acme Trading Company.", ORG=["Acme Trading Company"]), ENGLISH[3]])
    surfaces = {place.entity.text for place in pool.places}
    moved = surfaces - {"Acme Trading Company", "Anna", "Paris"}
    assert 4 <= len(moved) <= 6
    assert all(surface.strip() for surface in moved)
    (shown,) = pool.nearest([asked("She left Acme Trading.", "Acme Trading", "ORG")], 2)
    assert [claim.entity.text for claim in shown if claim.is_true] == ["Acme Trading Company"]
    assert [claim.is_true for claim in shown].count(False) == 1


def test_the_context_decides_between_equal_words():
    """Of two mentions of the same words the one in a like context is nearer."""
    pool = Pool([example("born in Paris, France", LOC=["Paris"]), example("the god Paris stole", LOC=["Paris"])])
    for text, first in (
        ("raised in Paris, France", "born in Paris, France"),
        ("the god Paris fled", "the god Paris stole"),
    ):
        (shown,) = pool.nearest([asked(text, "Paris", "LOC")], 4)
        assert [claim.text for claim in shown if claim.is_true][-1] == first


def test_vectors_tell_what_letters_cannot():
    """By the states of an encoder a disease is like a disease; halves, order and the own text's absence are as before."""
    diseases = [
        example("He suffers from asthma.", X=["asthma"]),
        example("He drives a new Toyota.", X=["Toyota"]),
        example("They eat bread and cheese.", X=["cheese"]),
        example("The trial included people with epilepsy.", X=["epilepsy"]),
    ]
    pool = Pool(diseases, Encoder(str(models.encoder())))
    question = asked("She was treated for malaria.", "malaria", "X")
    (shown,) = pool.nearest([question], 4)
    true = [claim.entity.text for claim in shown if claim.is_true]
    assert (true[-1], len(true), len(shown)) == ("asthma", 2, 4)
    (own,) = pool.nearest([asked(diseases[0].text, "asthma", "X")], 4)
    assert diseases[0].text not in {claim.text for claim in own}
    together = pool.nearest([question, asked("A Honda stood there.", "Honda", "X")], 4)
    assert together[0] == shown
    assert [claim.entity.text for claim in together[1] if claim.is_true][-1] == "Toyota"


def test_coincidences_keep_to_words_and_to_their_number():
    """Surfaces of elsewhere: not inside a word, not what is gold there, at most a few an example."""
    names = [f"N{i}" * (1 + i % 3) for i in range(12)]
    gold = example(" ".join(names), PER=names)
    plain = example(f"{' '.join(names)} stood here.")
    inside = example("xN0 N0x")
    pool = Pool([gold, plain, inside])
    count = Counter(place.text for place in pool.places)
    assert count[plain.text] == COINCIDENCES
    assert count[inside.text] == 0
    longest = sorted(names, key=len, reverse=True)[:COINCIDENCES]
    assert sorted(len(p.entity.text) for p in pool.places if p.text == plain.text) == sorted(map(len, longest))


def test_nobody_demonstrates_itself():
    """Neither the text, nor the text it was made of, outer white space aside; a text that stands twice is there once."""
    pool = Pool([*ENGLISH, Example("again", f" {ENGLISH[0].text}\n", ())])
    for text, origin in ((ENGLISH[0].text, ""), (f"\n{ENGLISH[0].text} ", ""), ("It is Washington.", ENGLISH[0].text)):
        (shown,) = pool.nearest([asked(text, "Washington", "LOC", origin)], 4)
        assert len(shown) == 4
        assert ENGLISH[0].text not in {claim.text.strip() for claim in shown}


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_halves(k):
    """As many true as false; of an odd number the nearer kind has one more, and more have the nearest of fewer last."""
    pool = Pool(ENGLISH)
    for surface, kind in (("Washington", "PER"), ("Paris", "PER"), ("Anna", "PER")):
        (shown,) = pool.nearest([asked(f"So {surface} it was.", surface, kind)], k)
        true = sum(claim.is_true for claim in shown)
        assert len(shown) == k
        assert abs(2 * true - k) == k % 2
        assert len({(claim.text, claim.entity.text) for claim in shown}) == k
    (one,) = pool.nearest([asked("So Paris it was.", "Paris", "PER")], 1)
    assert said(one) == [("Anna lives in Paris now.", "Paris", False)]
    (one,) = pool.nearest([asked("So Paris it was.", "Paris", "LOC")], 1)
    assert said(one) == [("Anna lives in Paris now.", "Paris", True)]


def test_what_runs_short_is_not_made_up_for():
    """As many of one kind as of the other: none at all for a type without gold, or where nothing false can be said."""
    assert Pool(ENGLISH).nearest([asked("On Washington day.", "Washington", "DATE")], 4) == [[]]
    south = Pool([example("北", LOC=["北"]), example("南", LOC=["南"])])
    assert south.nearest([asked("北", "北", "LOC")], 4) == [[]]
    (shown,) = south.nearest([asked("北", "北", "LOC")], 1)
    assert said(shown) == [("南", "南", True)]
    assert Pool([]).nearest([asked("a", "a", "X")], 4) == [[]]
    assert Pool([example("It rained.")]).nearest([asked("a", "a", "X")], 4) == [[]]
    assert Pool(ENGLISH).nearest([asked("a", "a", "X")], 0) == [[]]
    assert Pool(ENGLISH).nearest([], 2) == []


def test_any_batch_gives_the_same():
    """Alone, in another order, after pickling, or from a pool made again."""
    words = ["Anna", "Paris", "Rome", "Washington", "Bob", "saw", "in", "the", "北京", "大学"]
    draw = random.Random(7)
    gold = []
    for _ in range(60):
        text = " ".join(draw.choices(words, k=8))
        spans = {surface: draw.choice("XY") for surface in draw.sample(text.split(), 2)}
        gold.append(example(text, **{kind: [s for s in spans if spans[s] == kind] for kind in set(spans.values())}))
    questions = [Mention(x.text, e) for x in gold for e in x.entities]
    pool = Pool(gold)
    wanted = pool.nearest(questions, 3)
    assert [pool.nearest([one], 3)[0] for one in questions] == wanted
    order = draw.sample(range(len(questions)), len(questions))
    assert pool.nearest([questions[i] for i in order], 3) == [wanted[i] for i in order]
    assert pickle.loads(pickle.dumps(pool)).nearest(questions, 3) == wanted
    assert Pool(gold).nearest(questions, 3) == wanted


@st.composite
def examples(draw):
    """A text of words or of Chinese, and entities on random spans of it."""
    pieces = draw(
        st.lists(st.sampled_from(["Anna", " ", "北京", "大学", ".", "x1", "👩‍👩‍👧"]), min_size=1, max_size=12)
    )
    text = "".join(pieces)
    spans = draw(st.lists(st.tuples(st.integers(0, len(text) - 1), st.integers(1, 6), st.sampled_from("XY"))))
    entities = {Entity(a, min(a + n, len(text)), kind, text[a : a + n]) for a, n, kind in spans}
    return Example("x", text, tuple(sorted(entities)))


@settings(deadline=None)  # scikit-learn is imported on the way
@given(st.lists(examples(), min_size=1, max_size=5), st.integers(1, 6))
def test_claims_are_what_they_say(gold, k):
    """Every claim is a real span under the type asked about, and gold there exactly if it is said to be true."""
    first = {}
    for one in gold:
        first.setdefault(one.text.strip(), one)
    question = asked("Anna 北京", "北京", "X")
    (shown,) = Pool(gold).nearest([question], k)
    assert len(shown) <= k
    for claim in shown:
        entity, there = claim.entity, first[claim.text.strip()]
        assert isinstance(claim, VerificationExample)
        assert claim.text[entity.start : entity.end] == entity.text != ""
        assert entity.type == "X"
        assert claim.is_true == ((entity.text, "X") in {(e.text, e.type) for e in there.entities})
