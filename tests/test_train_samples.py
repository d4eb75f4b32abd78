"""Training samples: the prompts of inference, loss on the answer only, nobody shown to itself, nothing cut silently."""

from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from ner_batch.data import Entity, Example
from ner_batch.prompts import formats
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import ChatTokenizer
from ner_batch.task import Task
from ner_batch.train.packing import IGNORED
from ner_batch.train.samples import ExampleSet, draw_epoch, hold_out, swap, windowed, with_neighbours
from ner_batch.train.settings import AugmentationConfig, DemonstrationsConfig, GoldConfig
from ner_batch.verification import question as verify
from ner_batch.verification.examples import verification_examples
from ner_batch.verification.pool import Mention, Pool

TASK = Task(name="t", labels={"PER": {"definition": "people"}, "ORG": {"definition": "firms"}})


def example(name, text, **found):
    """An example whose entities are given by type: surface."""
    entities = tuple(
        Entity(text.index(s), text.index(s) + len(s), kind, s) for kind, surfaces in found.items() for s in surfaces
    )
    return Example(name, text, entities)


ANNA = example("1", "Anna joined Acme.", PER=["Anna"], ORG=["Acme"])
BOB = example("2", "Bob joined Initech.", PER=["Bob"], ORG=["Initech"])
RAIN = example("3", "It rained.")
AGAIN = replace(ANNA, id="4")


@pytest.fixture
def chat(random_model):
    return ChatTokenizer(AutoTokenizer.from_pretrained(random_model))


def builder(chat, name="json", length=2048):
    return PromptBuilder(formats.get(name), TASK, chat, length)


@pytest.mark.parametrize("name", formats.NAMES)
def test_samples_are_the_prompts_of_inference(chat, name):
    """Prompt ids are those of the prompt builder, the answer's ids those of the format, and only they are learnt."""
    build = builder(chat, name)
    samples, _ = draw_epoch(ExampleSet((ANNA,), (((BOB,),),)), build, {1: 1.0}, AugmentationConfig(), "0")
    groups = build.format.groups(TASK)
    assert len(samples) == len(groups)
    for sample, labels in zip(samples, groups, strict=True):
        assert list(sample.prompt) == build.build(ANNA.text, labels, [BOB]).token_ids
        answer = build.format.answer(ANNA.text, ANNA.entities, labels, TASK)
        assert list(sample.answer) == chat.encode_answer(answer)
        assert sample.labels == (IGNORED,) * len(sample.prompt) + sample.answer
        assert sample.answer[-1] in chat.stop_token_ids


def test_nobody_is_its_own_demonstration(chat):
    """Neither the example itself nor its exact duplicate is shown to it, in training or in dev."""
    train, dev = with_neighbours((ANNA, BOB, RAIN, AGAIN), (AGAIN,), DemonstrationsConfig(kind=("lexical",), k={4: 1}))
    for source in (train, dev):
        for asked, near in zip(source.examples, source.neighbours[0], strict=True):
            assert near
            assert asked.text not in {x.text for x in near}


def test_what_is_held_out_leaves_an_entity():
    """However few examples have any."""
    examples = [ANNA, *(example(str(i), f"Nothing {i}.") for i in range(9))]
    for seed in range(30):
        train, dev = hold_out(examples, GoldConfig(train="t", dev_share=0.5), seed)
        assert ANNA in train
        assert len(train) == len(dev) == 5


def test_no_text_is_trained_on_and_held_out():
    """However often a text comes, whatever stands around it."""
    copies = [example(f"{i}-{n}", f"Nothing {i}.{' ' * n}") for i in range(8) for n in range(3)]
    for seed in range(10):
        train, dev = hold_out([ANNA, BOB, *copies], GoldConfig(train="t", dev_share=0.2), seed)
        assert {x.text.strip() for x in train}.isdisjoint(x.text.strip() for x in dev)
        assert dev
    with pytest.raises(ValueError, match="too few different texts"):
        hold_out([ANNA, ANNA], GoldConfig(train="t"), 0)


def test_numbers_of_demonstrations_follow_their_shares(chat):
    """With shares for 0 and 2, both kinds of prompts are there; the same seed gives the same, another one another."""
    source = ExampleSet((ANNA, BOB) * 30, (((BOB, RAIN), (ANNA, RAIN)) * 30,))
    build = builder(chat)
    one, again, other = (
        draw_epoch(source, build, {0: 0.5, 2: 0.5}, AugmentationConfig(), seed)[0] for seed in ("0", "0", "1")
    )
    assert one == again != other
    bare = {len(build.build(x.text, ("PER", "ORG"), ()).token_ids) for x in (ANNA, BOB)}
    with_none = sum(len(sample.prompt) in bare for sample in one)
    assert 15 <= with_none <= 45


def test_kinds_of_retrieval_are_mixed(chat):
    """Of several kinds each sample draws one; dev takes the first. One kind may stand without brackets."""
    source = ExampleSet((ANNA,) * 40, (((BOB,),) * 40, ((RAIN,),) * 40))
    build = builder(chat)
    samples, _ = draw_epoch(source, build, {1: 1.0}, AugmentationConfig(), "0")
    drawn = [next(x for x in (BOB, RAIN) if shown(build, x) == list(sample.prompt)) for sample in samples]
    assert 10 <= drawn.count(BOB) <= 30
    assert source.demonstrations(1) == [(BOB,)] * 40
    assert DemonstrationsConfig.model_validate({"kind": "lexical"}).kind == ("lexical",)
    several = DemonstrationsConfig(kind=("random", "lexical"), k={2: 1})
    train, _ = with_neighbours((ANNA, BOB, RAIN, AGAIN), (), several)
    assert len(train.neighbours) == 2


def shown(build, demonstration):
    """The prompt about Anna with one demonstration."""
    return build.build(ANNA.text, ("PER", "ORG"), [demonstration]).token_ids


def test_what_is_too_long_is_counted(chat):
    """A sample over the model's length is left out and reported, never cut."""
    need = len(builder(chat).build(RAIN.text, ("PER", "ORG"), ()).token_ids)
    long = example("5", "Anna " * 40, PER=["Anna"])
    samples, left_out = draw_epoch(
        ExampleSet((RAIN, long)), builder(chat, length=need + 130), {0: 1}, AugmentationConfig(), "0"
    )
    assert len(samples) == 1
    assert left_out["too long"] == 1


def test_hard_negatives_are_kept_first(chat):
    """Half of the negatives: those whose type occurs in a similar sentence."""
    only = example("6", "Acme fell.", ORG=["Acme"])
    plain = example("7", "Initech fell.", ORG=["Initech"])
    build = builder(chat, "mrc")
    source = ExampleSet((only, plain), (((BOB,), ()),))
    samples, left_out = draw_epoch(source, build, {0: 1}, AugmentationConfig(negatives=0.5), "0")
    asked = [list(s.prompt) for s in samples]
    assert build.build(only.text, ("PER",), ()).token_ids in asked  # BOB has a PER, so it is hard
    assert build.build(plain.text, ("PER",), ()).token_ids not in asked
    assert left_out["negative"] == 1


def test_verification_questions_are_those_of_inference(chat):
    """Two and a half an example on average; prompts and answers are the verifier's, with claims about other texts."""
    build = builder(chat)
    source = ExampleSet((ANNA, BOB), (((BOB,), (ANNA,)),))
    plain, _ = draw_epoch(source, build, {1: 1}, AugmentationConfig(), "0")
    made = [draw_epoch(source, build, {1: 1}, AugmentationConfig(verification=2.5), str(seed))[0] for seed in range(20)]
    assert [s for s in made[0] if s in plain] == plain
    questions = [s for samples in made for s in samples if s not in plain]
    assert 80 < len(questions) < 120
    pool = Pool((ANNA, BOB))
    possible = {
        (asked_at_inference(chat, pool, claim), claim.is_true)
        for x in (ANNA, BOB)
        for seed in range(300)
        for claim in verification_examples(x, TASK.names, 3, str(seed))
    }
    for question in questions:
        true = question.answer == tuple(chat.encode_answer("yes"))
        assert true or question.answer == tuple(chat.encode_answer("no"))
        assert (question.prompt, true) in possible
    made = [
        draw_epoch(source, build, {0: 1}, AugmentationConfig(verification=1.0), str(seed))[0] for seed in range(100)
    ]
    yes = sum(s.answer == tuple(chat.encode_answer("yes")) for samples in made for s in samples)
    assert 70 < yes < 130  # of 200: half of them are near misses


def test_examples_without_an_entity_do_not_teach_to_say_no(chat, random_model):
    """Half of the questions are true however few examples have an entity; of the false ones some are about the others."""
    rain = tuple(example(f"r{number}", f"It rained for {number} days.") for number in range(60))
    annotated = tuple(replace(x, id=f"{x.id}-{number}") for x in (ANNA, BOB) for number in range(15))
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    yes, about_rain, asked = 0, 0, 0
    for seed in range(10):
        samples, _ = draw_epoch(
            ExampleSet(annotated + rain), builder(chat), {0: 1}, AugmentationConfig(verification=1.0), str(seed)
        )
        questions = [s for s in samples if s.answer in {tuple(chat.encode_answer(word)) for word in ("yes", "no")}]
        assert len(questions) == len(annotated)
        asked += len(questions)
        yes += sum(s.answer == tuple(chat.encode_answer("yes")) for s in questions)
        about_rain += sum("It rained" in tokenizer.decode(s.prompt) for s in questions)
    assert 0.4 < yes / asked < 0.6
    assert 0.15 < about_rain / asked < 0.3


def asked_at_inference(chat, pool, claim):
    """The prompt about a claim with one demonstration, as the verifier builds it."""
    (shown,) = pool.nearest([Mention(claim.text, claim.entity)], 1)
    assert claim.text not in {one.text for one in shown}
    return tuple(verify.Questions(TASK, chat, 2048).prompt(claim.text, claim.entity, shown))


def test_a_swapped_example_is_not_shown_its_original(chat, random_model):
    """Other mentions make another text of it, and the text it was made of would tell the answer."""
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    source = ExampleSet((ANNA, BOB), (((BOB,), (ANNA,)),))
    build = builder(chat)
    prompts = []
    for seed in range(20):
        samples, _ = draw_epoch(source, build, {2: 1}, AugmentationConfig(swapped=1.0, verification=1.0), str(seed))
        prompts += [text for text in (tokenizer.decode(s.prompt) for s in samples) if "yes or no" in text]
    swapped = [p for p in prompts if p.count("Bob joined Acme.") or p.count("Anna joined Initech.")]
    assert len(prompts) == 40
    assert len(swapped) > 10
    for prompt in swapped:
        assert (ANNA.text in prompt) != (BOB.text in prompt)


def test_windows_keep_the_entities_inside(chat):
    """A long example becomes windows whose entities are where their text is; what lies across an edge is counted."""
    text = "Anna joined Acme. " * 20
    starts = [i for i in range(len(text)) if text.startswith("Anna", i)]
    long = Example("8", text, tuple(Entity(i, i + 4, "PER", "Anna") for i in starts))
    made, lost = windowed([long, RAIN], 40, chat)
    assert len(made) > 3
    assert sum(len(x.entities) for x in made) + lost == len(starts)
    assert lost == 0
    assert all(x.text[e.start : e.end] == e.text for x in made for e in x.entities)


def test_swapping_keeps_spans_true():
    """Other names, right spans, equal names stay equal; overlapping entities are left alone."""
    twice = Example("9", "Anna met Anna.", (Entity(0, 4, "PER", "Anna"), Entity(9, 13, "PER", "Anna")))
    swapped = swap(twice, lambda _: "Bartholomew")
    assert swapped.text == "Bartholomew met Bartholomew."
    assert all(swapped.text[e.start : e.end] == e.text for e in swapped.entities)
    nested = Example("10", "Anna Acme", (Entity(0, 9, "ORG", "Anna Acme"), Entity(0, 4, "PER", "Anna")))
    assert swap(nested, lambda _: "X") == nested
