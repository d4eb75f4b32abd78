"""Texts chosen for annotation: the rule of uncertainty, disagreement of two runs, spread, and the same each time."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_exchange_job import done, refused

from ner_batch.data import Entity, Prediction, Status, Ungrounded, predictions_table
from ner_batch.exchange.rows import Row
from ner_batch.exchange.select import disagreement, uncertainty


def written(folder, predictions, files=2):
    """A run's output: rows of (text, prediction) over some files."""
    folder.mkdir()
    step = -(-len(predictions) // files)
    for number in range(files):
        part = predictions[number * step : (number + 1) * step]
        table = predictions_table([prediction for _, prediction in part])
        table = table.append_column("text", pa.array([text for text, _ in part], pa.string()))
        pq.write_table(table, folder / f"{number}.parquet")
    return folder


def scored(text, *scores, **more):
    """A prediction whose entities are the text's first characters, with scores; None is one."""
    entities = tuple(Entity(n, n + 1, "X", text[n], score) for n, score in enumerate(scores))
    return text, Prediction(entities, **more)


def chosen(tmp_path, run, by, count, *options):
    """The texts that are exported, in order, and the lines printed."""
    lines = done("export", "prodigy", run, tmp_path / "out", "--select", by, "--count", count, *options)
    texts = [json.loads(line)["text"] for line in (tmp_path / "out").read_text().splitlines()]
    (tmp_path / "out").unlink()
    return texts, lines


@pytest.mark.parametrize(
    ("entities", "more", "value"),
    [
        ([], {}, 0.0),
        ([(0.9, None)], {}, 0.2),
        ([(0.9, None), (0.75, True)], {}, 0.5),
        ([(0.3, None)], {}, 1.0),
        ([(0.05, False)], {}, 0.1),
        ([(0.45, False)], {}, 0.9),
        ([(None, None)], {}, 0.0),
        ([(0.99, None)], {"ungrounded": 1}, 1.0),
        ([(0.99, None)], {"status": Status.PARTIAL}, 1.0),
        ([], {"status": Status.MALFORMED}, 1.0),
        ([], {"status": Status.TRUNCATED}, 1.0),
    ],
)
def test_how_uncertain_a_row_is(entities, more, value):
    """Twice the probability that the most doubtful entity was decided wrongly; bad answers count as 1."""
    made = tuple(Entity(0, 1, "X", "a", score, verified) for score, verified in entities)
    assert uncertainty(Row("1", "a", made, **{"status": Status.OK, **more})) == pytest.approx(value)


def test_how_much_two_runs_disagree():
    """The share of entities that one alone has; what verification rejected is not there."""
    a, b, c = (Entity(n, n + 1, "X", "a") for n in range(3))
    assert disagreement([], []) == 0
    assert disagreement([a, b], [b, a]) == 0
    assert disagreement([a], []) == 1
    assert disagreement([a, b], [b, c]) == pytest.approx(0.5)
    assert disagreement([a], [Entity(0, 1, "X", "a", 0.1, False)]) == 1


def test_the_least_certain_first(tmp_path):
    """Ranked over all files; rows that no model has read are left out and counted, and so is text that is null."""
    predictions = [
        scored("sure thing", 0.99),
        scored("quite doubtful", 0.7),
        ("lost", Prediction(status=Status.FAILED, error="no")),
        (None, Prediction(status=Status.EMPTY)),
        scored("most doubtful words", 0.6),
        scored("named elsewhere 7", 0.9, ungrounded=(Ungrounded("Y", "X", "not in text"),)),
        scored("nothing told", None),
    ]
    run = written(tmp_path / "run", predictions)
    texts, lines = chosen(tmp_path, run, "uncertain", 3)
    assert texts == ["named elsewhere 7", "most doubtful words", "quite doubtful"]
    assert "uncertain from 1.00 down to 0.60: 3 ok" in lines
    assert "1 of 5 rows have entities without a score, which count as certain" in lines
    assert "1 rows of status failed, which no model has read, left out" in lines
    assert "1 rows without text, left out" in lines
    texts, lines = chosen(tmp_path, run, "uncertain", 100)
    assert len(texts) == 5
    assert "only 5 rows could be taken, not 100" in lines


def test_what_verification_rejected_is_left_out_and_counted(tmp_path):
    """Of the rows taken; the flat table has them, as it does without a selection."""
    entities = (Entity(0, 1, "X", "a", 0.9), Entity(1, 2, "X", "b", 0.4, False))
    run = written(tmp_path / "run", [("ab", Prediction(entities)), scored("sure thing", 0.99)])
    texts, lines = chosen(tmp_path, run, "uncertain", 1)
    assert texts == ["ab"]
    assert "1 entities that verification rejected, left out" in lines
    done("export", "mentions", run, tmp_path / "m.parquet", "--select", "uncertain", "--count", 1)
    assert pq.read_table(tmp_path / "m.parquet")["verified"].to_pylist() == [None, False]


def test_near_duplicates_are_not_all_taken(tmp_path):
    """A hundred variants of one sentence are one candidate; without spread they take all places."""
    same = [scored(f"the very same sentence about Ohio {n}", 0.5) for n in range(30)]
    others = [scored(text, 0.6) for text in ("die Katze schläft", "杭州市西湖区", "quarterly figures rose 3 %")]
    run = written(tmp_path / "run", [*same, *others])
    texts, _ = chosen(tmp_path, run, "uncertain", 4)
    assert {text for text, _ in others} <= {*texts}
    texts, _ = chosen(tmp_path, run, "uncertain", 4, "--no-spread")
    assert all(text.startswith("the very same") for text in texts)


def test_what_two_runs_disagree_on(tmp_path):
    """The runs may be cut into other files, but must be on the same texts in the same order."""
    rows = [scored("one text", 0.9), scored("another one here"), scored("third of them", 0.9)]
    other = [scored("one text", 0.2), scored("another one here", 0.9), scored("third of them", 0.9, 0.9)]
    run, second = written(tmp_path / "run", rows), written(tmp_path / "second", other, files=3)
    texts, lines = chosen(tmp_path, run, "disagreement", 2, "--against", second)
    assert texts == ["another one here", "third of them"]
    assert "disagreement from 1.00 down to 0.33: 2 ok" in lines
    for name, part in (
        ("short", other[:2]),
        ("long", [*other, scored("more")]),
        ("changed", [scored("One text"), *other[1:]]),
    ):
        line = refused(
            *("export", "prodigy", run, tmp_path / "out", "--select", "disagreement", "--count", 1),
            *("--against", written(tmp_path / name, part)),
        )
        assert "must have read the same texts" in line
    assert not (tmp_path / "out").exists()


def test_a_random_draw(tmp_path):
    """The same for a seed, another for another, and of every part of the input."""
    run = written(tmp_path / "run", [scored(f"text {n}", 0.9) for n in range(200)], files=4)
    draws = {seed: chosen(tmp_path, run, "random", 20, "--seed", seed)[0] for seed in (0, 1)}
    assert draws[0] == chosen(tmp_path, run, "random", 20)[0]
    assert len({*draws[0]}) == 20
    assert draws[0] != draws[1]
    assert {int(text.split()[1]) // 50 for text in draws[0]} == {0, 1, 2, 3}


def test_a_selection_is_the_same_each_time(tmp_path):
    """Ties are broken by a hash, so not all of the first file are taken."""
    run = written(tmp_path / "run", [scored(f"{n * 7919 % 1000} apples", 0.5) for n in range(100)])
    texts, _ = chosen(tmp_path, run, "uncertain", 10, "--no-spread")
    assert texts == chosen(tmp_path, run, "uncertain", 10, "--no-spread")[0]
    first_file = {f"{n * 7919 % 1000} apples" for n in range(50)}
    assert 0 < len(first_file & {*texts}) < 10
