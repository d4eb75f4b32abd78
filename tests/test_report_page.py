"""The report's page as it is written: what it counts, what it escapes, what it leaves out, and when it is refused."""

import io
import json
import os
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from outputs import corpus, row, write_output
from refusals import refused
from rich.console import Console
from s3_server import BUCKET, point_at, s3_server
from typer.testing import CliRunner

from ner_batch.cli import app
from ner_batch.data import Entity, Example, Prediction, Status, Ungrounded
from ner_batch.evaluate.match import OUTCOMES
from ner_batch.extraction.lease import Lease
from ner_batch.io import storage
from ner_batch.io.examples import examples_table
from ner_batch.io.listing import list_shards
from ner_batch.report.against import compare
from ner_batch.report.job import build, prepare
from ner_batch.report.output import choose_places, open_output, read_rows
from ner_batch.report.page import script_json
from ner_batch.report.rows import HEAD, fold
from ner_batch.report.settings import ReportConfig
from ner_batch.report.totals import SurfaceCounts, timeline

ROWS = corpus(400)


class Page(HTMLParser):
    """A page read as a browser reads it: ``text`` outside of scripts and styles, ``elements`` by name, ``data``."""

    def __init__(self, content):
        super().__init__()
        self.elements, self.attributes, self.scripts, self._texts, self._open = Counter(), [], [], [], ""
        self.html = content.decode()
        self.feed(self.html)
        self.close()
        self.text = " ".join(" ".join(self._texts).split())
        self.data = json.loads(self.scripts[0])

    def handle_starttag(self, tag, attrs):
        self.elements[tag] += 1
        self.attributes += attrs
        self._open = tag

    def handle_endtag(self, _):
        self._open = ""

    def handle_data(self, data):
        if self._open == "script":
            self.scripts.append(data)
        elif self._open != "style":
            self._texts.append(data)

    def row(self, id_):
        """A row's values."""
        (found,) = [values for values in self.data["rows"] if values.get("id") == id_]
        return found


def page_of(folder, **options):
    """The page of a folder."""
    return Page(build(prepare(ReportConfig(folder=str(folder), **options))))


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """400 rows in four files."""
    return write_output(tmp_path_factory.mktemp("report") / "out", ROWS)


def gold_of(rows, change=lambda entities: entities):
    """Gold of some rows as a table: their entities, changed."""
    return examples_table(
        [Example(i, t, tuple(replace(e, score=None) for e in change(p.entities))) for i, t, p in rows]
    )


# --- what it says ---------------------------------------------------------------------------------------------------


def test_it_counts_what_is_there(output):
    """Rows, statuses, types, tokens and reasons, against the rows themselves."""
    page = page_of(output)
    predictions = [prediction for _, _, prediction in ROWS]
    types = Counter(e.type for p in predictions for e in p.entities)
    for type_, count in types.items():
        assert re.search(rf"\b{type_} {count}\b", page.text)
    for status, count in Counter(p.status.value for p in predictions).items():
        assert re.search(rf"\b{status} {count}\b", page.text)
    assert f"prompt tokens {sum(p.prompt_tokens for p in predictions):,}" in page.text
    assert f"ungrounded mentions {sum(len(p.ungrounded) for p in predictions)}" in page.text
    (surface, count), *_ = Counter(e.text for p in predictions for e in p.entities if e.type == "PER").most_common(1)
    assert f"{surface} {count}" in page.text
    assert "All 400 rows." in page.text


def test_a_row_is_there_as_it_was_written(output):
    """Text, entities with scores, status, error, tokens, ungrounded mentions."""
    page = page_of(output)
    for id_, text, prediction in ROWS:
        values = page.row(id_)
        assert values["text"] == [[0, text]]
        assert values["tokens"] == [prediction.prompt_tokens, prediction.completion_tokens]
        assert page.data["statuses"][values["status"]] == prediction.status
        assert values.get("error") == prediction.error
        spans = [(s, e, page.data["types"][t], score) for s, e, t, score, *_ in values["own"]]
        assert spans == [(e.start, e.end, e.type, round(e.score, 4)) for e in prediction.entities]
        assert len(values.get("ungrounded", ())) == len(prediction.ungrounded)


def test_nothing_comes_from_elsewhere_and_a_policy_says_so(output):
    """No address of anything to load; the policy lets only this page's own script and style run."""
    page = page_of(output)
    assert [value for name, value in page.attributes if name in ("src", "srcset", "action")] == []
    assert {value for name, value in page.attributes if name == "href"} == {"#rows", "data:,"}
    assert "url(" not in page.html
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]
    policy = next(value for name, value in page.attributes if value and value.startswith("default-src"))
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_the_same_page_twice(output):
    """A seed decides; another seed shows other rows."""
    first = build(prepare(ReportConfig(folder=output, rows=50)))
    assert first == build(prepare(ReportConfig(folder=output, rows=50)))
    assert first != build(prepare(ReportConfig(folder=output, rows=50, seed=1)))


def test_several_tasks_are_named(tmp_path):
    """Entities and ungrounded mentions of a run of several tasks."""
    entities = (Entity(0, 4, "PER", "Anna", None, None, "news"), Entity(0, 4, "DRUG", "Anna", None, True, "bio"))
    tagged = Prediction(tuple(sorted(entities, key=lambda e: e.type)), (Ungrounded("x", "PER", "not in text", "bio"),))
    page = page_of(write_output(tmp_path / "o", [("a", "Anna", tagged)], tagged=True))
    values = page.row("a")
    assert [(page.data["types"][e[2]], page.data["tasks"][e[5]]) for e in values["own"]] == [
        ("DRUG", "bio"),
        ("PER", "news"),
    ]
    assert page.data["tasks"][values["ungrounded"][0][3]] == "bio"


@pytest.mark.parametrize(
    ("state", "shown"), [("interrupted", "interrupted"), ("running", "killed"), ("incomplete", "incomplete")]
)
def test_a_run_that_is_not_whole_says_so(tmp_path, state, shown):
    """Above all else, with how far it is."""
    page = page_of(write_output(tmp_path / "o", ROWS[:50], state=state, rows_in=80))
    assert f"This run {'is' if shown == 'incomplete' else 'was'} {shown}" in page.text
    assert "rows 50 of 80" in page.text


def test_a_run_that_is_still_going_says_so(tmp_path):
    """While it renews its lease."""
    folder = write_output(tmp_path / "o", ROWS[:50], state="running", rows_in=80)
    with Lease(folder, Console(file=io.StringIO())):
        page = page_of(folder)
    assert "This run is still going" in page.text
    assert "50 of 80" in page.text


def test_a_run_that_has_written_nothing_yet_has_a_page(tmp_path):
    """With gold too: nothing is scored."""
    folder = write_output(tmp_path / "o", [], state="interrupted", rows_in=80)
    pq.write_table(gold_of(ROWS[:3]), tmp_path / "gold.parquet")
    page = page_of(folder, gold=str(tmp_path / "gold.parquet"))
    assert "No row is written yet" in page.text
    assert page.data["rows"] == []


def test_rows_without_texts_and_without_ids(tmp_path):
    """The output may keep no input column: entities stand alone, rows are named by their file."""
    folder = write_output(tmp_path / "o", ROWS[:20])
    for path in (tmp_path / "o").glob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["id", "text"]), path)
    page = page_of(folder)
    assert "did not keep the texts" in page.text
    assert [len(values["own"]) for values in page.data["rows"]] == [len(p.entities) for _, _, p in ROWS[:20]]
    assert re.fullmatch(r"texts-\w+-0{10}\.parquet:0", page.data["rows"][0]["unit"])


# --- which rows -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 60), st.integers(0, 5))
def test_the_sample_is_spread_and_holds_what_must_be_there(unit_rows, count, seed):
    """In order, each row once; one row in every stretch of the output; what comes first is among them."""
    everything = [(unit, row) for unit, rows in enumerate(unit_rows) for row in range(rows)]
    first = {"failed": everything[-2:]}
    places = choose_places(unit_rows, first, count, seed)
    assert places == sorted(set(places))
    assert set(places) <= set(everything)
    if len(everything) <= count:
        assert places == everything
        return
    assert set(first["failed"][: max(1, count // 10)]) <= set(places)
    positions = [everything.index(place) for place in places]
    widest = max(b - a for a, b in zip([-1, *positions], [*positions, len(everything)], strict=True))
    spread = count - min(2, max(1, count // 10))
    assert widest <= 2 * -(-len(everything) // max(1, spread)) or not spread


def test_of_every_status_that_is_no_answer_rows_are_shown(tmp_path):
    """One failed row in 2,000 is on a page of 20."""
    rows = [row(f"r{n}", "Anna came", ("Anna", "PER")) for n in range(2000)]
    for n, status in ((1234, Status.FAILED), (77, Status.TRUNCATED), (1999, Status.PARTIAL)):
        rows[n] = row(f"r{n}", "Anna came", status=status, error="because")
    page = page_of(write_output(tmp_path / "o", rows, unit_rows=300), rows=20)
    assert {"r1234", "r77", "r1999"} <= {values["id"] for values in page.data["rows"]}
    assert 18 <= len(page.data["rows"]) <= 20


@settings(max_examples=60, deadline=None)
@example([("A", surface) for surface in "uuuvvw"], 1)
@given(st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from("uvwxyz")), max_size=80), st.integers(1, 4))
def test_frequent_surfaces_are_counted_with_a_bound(pairs, capacity):
    """Never too many, at most ``undercount`` too few, and no more held than twice the capacity."""
    counts, exact = SurfaceCounts(capacity), Counter(pairs)
    for start in range(0, len(pairs), 7):
        types, surfaces = zip(*pairs[start : start + 7], strict=True)
        counts.add(pa.array(types), pa.array(surfaces))
        assert len(counts.counts) <= 2 * capacity
    assert counts.undercount * (capacity + 1) <= len(pairs) - counts.counts.total()
    for pair, count in exact.items():
        assert count - counts.undercount <= counts.counts[pair] <= count
    if len(exact) <= 2 * capacity:
        assert counts.counts == exact


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 30_000),
    st.lists(st.tuples(st.integers(0, 29_000), st.integers(1, 900)), max_size=8),
    st.integers(4 * HEAD, 20_000),
)
def test_a_long_text_is_folded_around_its_entities(length, spans, limit):
    """Parts in order, apart, and short; while there is room both ends of every span are shown."""
    spans = [(start, min(start + width, length)) for start, width in spans if start < length]
    parts = fold("x" * length, spans, limit)
    if length <= limit:
        assert parts == [(0, length)]
        return
    assert parts[0][0] == 0
    assert all(a < b for a, b in parts)
    assert all(after[0] - before[1] > 0 for before, after in pairwise(parts))
    shown = sum(end - start for start, end in parts)
    assert shown <= limit
    if shown < limit:
        for start, end in spans:
            for place in (start, end - 1):
                assert any(a <= place < b for a, b in parts)


def test_a_text_of_a_megabyte_takes_little(tmp_path):
    """Its entities are there, where they were."""
    text = "x" * 500_000 + " Anna Berg " + "y" * 500_000
    whole = "z" * 1_000_000
    rows = [row("long", text, ("Anna Berg", "PER")), ("all", whole, Prediction((Entity(0, len(whole), "X", whole),)))]
    page = page_of(write_output(tmp_path / "o", rows))
    assert len(page.html) < 100_000
    values = page.row("long")
    (offset, part), *_ = [part for part in values["text"] if part[0]]
    start, end, *_ = values["own"][0]
    assert part[start - offset : end - offset] == "Anna Berg"
    assert values["length"] == len(text)
    assert page.row("all")["own"][0][:2] == [0, 1_000_000]


# --- escaping -------------------------------------------------------------------------------------------------------

HOSTILE = (
    "</script><script>window.hacked=1</script>", "<img src=x onerror=window.hacked=1>", "<!--<script>", "]]>",
    "\u2028 \u2029", "\0\x1b[31m", "\u202eabc", "{{ 7 * 7 }}{% raw %}", "__proto__", "constructor", "a\"b'c/d\\e", "&lt;b&gt;", "\U0001f600",
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=30) | st.sampled_from(HOSTILE))
def test_any_text_comes_through_json_in_a_script(text):
    """And nothing in it can end the script or begin a comment."""
    embedded = script_json({"text": text})
    assert not set("<>&\u2028\u2029\0") & set(embedded)
    assert json.loads(embedded) == {"text": text}


def test_hostile_rows_are_text(tmp_path):
    """In texts, ids, types, surfaces, reasons, errors, and in what stands above the rows: no element of theirs."""
    rows = []
    for n, words in enumerate(HOSTILE):
        text = f"{words} and more"
        entity = Entity(0, len(words), words, words, 0.5)
        mention = Ungrounded(words, words, words)
        rows.append((f"{n}{words}", text, Prediction((entity,), (mention,), Status.PARTIAL, words, 1, 1)))
    folder = write_output(tmp_path / "<b>&'\"", rows)
    page = page_of(folder)
    more = {"ungrounded": (Ungrounded("c", "X", "not in text"),), "status": Status.PARTIAL, "error": "because"}
    plain = page_of(write_output(tmp_path / "plain", [row("a", "b c", ("b", "X", 0.5), **more)]))
    for element in ("style", "img", "meta", "link", "form"):
        assert page.elements[element] == plain.elements[element]
    assert page.elements["script"] == 2
    assert {name for name, _ in page.attributes} == {name for name, _ in plain.attributes}
    assert "\0" not in page.html
    for n, words in enumerate(HOSTILE):
        values = page.row(f"{n}{words}")
        assert values["text"] == [[0, f"{words} and more"]]
        assert page.data["types"][values["own"][0][2]] == words


def test_thousands_of_types_are_cut_and_counted(tmp_path):
    """Tables stay short; the rows name them all."""
    rows = [row(f"r{n}", f"name{n}", (f"name{n}", f"T{n}")) for n in range(3000)]
    page = page_of(write_output(tmp_path / "o", rows, unit_rows=1000))
    assert "and 2,960 more types" in page.text
    assert page.elements["tr"] < 300
    assert len(page.data["types"]) == 3000


# --- against gold ---------------------------------------------------------------------------------------------------


def test_it_is_scored_as_evaluate_scores(output, tmp_path):
    """Figures and kinds of error; a gold row without a row here and rows without gold are left out and told."""
    some = ROWS[:300]
    pq.write_table(gold_of([*some, ("elsewhere", "text", Prediction())], lambda e: e[:1]), tmp_path / "gold.parquet")
    page = page_of(output, gold=str(tmp_path / "gold.parquet"))
    correct = sum(bool(p.entities) for _, _, p in some)
    predicted = sum(len(p.entities) for _, _, p in some)
    assert f"precision {correct / predicted:.3f}" in page.text
    assert "recall 1.000" in page.text
    assert "300 rows scored" in page.text
    assert "1 gold rows have no row here" in page.text
    assert "100 rows have no gold" in page.text
    for id_, _, prediction in some:
        kinds = [OUTCOMES[e[6]] for e in page.row(id_)["own"]]
        assert Counter(kinds) == Counter(
            ["correct"] * bool(prediction.entities) + ["spurious"] * (len(kinds) - 1 if kinds else 0)
        )
    assert "gold" not in page.row(ROWS[399][0])


def test_the_rows_with_the_most_errors_are_shown(tmp_path):
    """One bad row among 3,000 is on a page of 10."""
    rows = [row(f"r{n}", "Anna came", ("Anna", "PER")) for n in range(3000)]
    gold = gold_of(rows)
    rows[1701] = row("r1701", "Anna came", ("came", "PER"))
    pq.write_table(gold, tmp_path / "gold.parquet")
    page = page_of(write_output(tmp_path / "o", rows, unit_rows=500), rows=10, gold=str(tmp_path / "gold.parquet"))
    values = page.row("r1701")
    assert [OUTCOMES[e[6]] for e in values["gold"]] == ["missed"]


def test_gold_may_lie_in_the_same_rows(tmp_path):
    """Without ids: rows are joined with themselves."""
    gold = [[{"start": e.start, "end": e.end, "type": e.type} for e in p.entities] for _, _, p in ROWS[:60]]
    folder = write_output(tmp_path / "o", ROWS[:60], right=gold)
    for path in (tmp_path / "o").glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["id"]), path)
    page = page_of(folder, gold_column="right")
    assert "F1 1.000" in page.text
    assert {kind for values in page.data["rows"] for *_, kind in values["own"]} == {0}


# --- two runs -------------------------------------------------------------------------------------------------------


def changed(rows):
    """Every seventh row without its first entity."""
    return [(i, t, replace(p, entities=p.entities[1:]) if n % 7 == 0 else p) for n, (i, t, p) in enumerate(rows)]


@pytest.mark.parametrize("unit_rows", [100, 33, 1000])
def test_two_runs_are_compared_row_by_row(output, tmp_path, unit_rows):
    """However the other one's units are cut."""
    others = changed(ROWS)
    other = write_output(tmp_path / "other", others[:390], unit_rows=unit_rows)
    differing = [i for (i, _, p), (_, _, o) in zip(ROWS[:390], others, strict=False) if p.entities != o.entities]
    sides = [open_output(folder) for folder in (output, other)]
    cut = [list(f) for f in ([100] * 4, [min(unit_rows, 390 - start) for start in range(0, 390, unit_rows)])]
    differences, _ = compare(*sides, *cut, 1000)
    assert (differences.rows, differences.rows_different, differences.rows_this) == (390, len(differing), 10)
    assert differences.this.total() == len(differing)
    assert differences.other.total() == 0
    assert differences.both.total() == sum(len(o.entities) for _, _, o in others[:390])
    page = page_of(output, against=other)
    assert [values["id"] for values in page.data["rows"] if values.get("differs")] == differing
    assert f"{len(differing)} of 390 rows that both runs have differ" in page.text


# --- places, times, refusals ----------------------------------------------------------------------------------------


def test_the_course_of_a_run_is_in_the_times_of_its_files(tmp_path):
    """Rows by time, without the pause between two runs; nothing where the times are not the runs'."""
    runs = [
        {"started": "2026-11-03T18:00:00+00:00", "seconds": 100.0, "rows": 200, "rows_per_second": 2.0},
        {"started": "2026-11-04T18:00:00+00:00", "seconds": 100.0, "rows": 200, "rows_per_second": 2.0},
    ]
    folder = write_output(tmp_path / "o", ROWS, unit_rows=20, runs=runs)
    first = 1793728800.0  # 2026-11-03T18:00:00Z
    for n, path in enumerate(sorted((tmp_path / "o").glob("*.parquet"))):
        at = first + 10 * n + 5 + (86400 - 100 if n >= 10 else 0)
        os.utime(path, (at, at))
    files = open_output(folder).files
    course = timeline(files, [20] * 20, runs)
    assert sum(course.rows_per_second) * course.step == pytest.approx(400)
    assert course.rows_per_second == pytest.approx([2.0] * 10)
    assert course.starts == (0.0, 100.0)
    assert "Rows written per second" in page_of(folder).text
    for path in (tmp_path / "o").glob("*.parquet"):
        os.utime(path, (first + 3 * 86400,) * 2)
    assert timeline(open_output(folder).files, [20] * 20, runs) is None


def test_in_a_bucket_it_lies_beside_the_data(monkeypatch):
    """By default too; the store's times are the files'; readers of the data do not see the page."""
    with s3_server() as (endpoint, _):
        point_at(monkeypatch, endpoint)
        folder = write_output(f"s3://{BUCKET}/out", ROWS, unit_rows=50)
        outcome = CliRunner().invoke(app, ["report", folder, "--rows", "20"])
        assert outcome.exit_code == 0, outcome.output
        assert re.fullmatch(rf"report: {folder}/_report\.html, [\d.]+ MB", outcome.stdout.splitlines()[-1])
        assert len(Page(storage.read_bytes(f"{folder}/_report.html")).data["rows"]) <= 20
        assert all(file.written for file in storage.list_files(folder))
        assert len(list_shards(folder, "text").shards) == 8


@pytest.fixture
def command(output, tmp_path):
    """`ner-batch report` on the output with options; (exit code, error lines). An earlier page stays as it was."""
    page = tmp_path / "page.html"
    page.write_text("earlier")

    def report(*options, folder=output):
        outcome = CliRunner().invoke(app, ["report", folder, "--out", str(page), *map(str, options)])
        assert page.read_text() == "earlier"
        assert not list(tmp_path.glob(".ner_batch-tmp-*"))
        return outcome.exit_code, outcome.stderr.splitlines()

    return report


def test_what_is_no_output_is_refused(command, tmp_path):
    """No folder, an empty one, a file, and Parquet of another kind."""
    (tmp_path / "a.parquet").write_bytes(b"x")
    for folder in (tmp_path / "nowhere", tmp_path, tmp_path / "a.parquet"):
        refused(command(folder=str(folder)), folder, "no extraction has begun here")
        refused(command("--against", folder), folder, "no extraction has begun here")
    refused(command(folder=""), "folder")
    refused(command("--out", ""), "out")


def test_wrong_gold_is_refused(command, tmp_path):
    """Of another text, without ids, without entities, nowhere; the flags are named."""
    path = tmp_path / "a-gold.parquet"
    others = [(i, f"{t}!", p) for i, t, p in ROWS]
    pq.write_table(gold_of(others), path)
    refused(command("--gold", path), "other text than gold has under the same id", "r0")
    pq.write_table(gold_of(ROWS).rename_columns(["doc", "text", "entities"]), path)
    refused(command("--gold", path), "--gold-id-column", "no column 'id'", "doc")
    pq.write_table(gold_of(ROWS), path)
    refused(command("--gold", path, "--id-column", "doc_id"), "--id-column", "no column 'doc_id'")
    refused(command("--gold", path, "--gold-column", "mentions"), "--gold-column", "no column 'mentions'")
    refused(command("--gold-column", "mentions"), "--gold-column", "no column 'mentions'")
    refused(command("--gold-column", "entities"), "--gold-column")
    refused(command("--gold", tmp_path / "nowhere"), "nowhere", "no such file or folder")
    pq.write_table(gold_of([("other", "text", Prediction())]), path)
    refused(command("--gold", path), "no row has both gold and a prediction")


def test_another_input_is_refused(command, tmp_path):
    """A run on other texts cannot be compared."""
    others = [(i, f"{t}!", p) for i, t, p in ROWS]
    refused(
        command("--against", write_output(tmp_path / "a-other", others)), "another text", "give two runs on one input"
    )


@pytest.mark.parametrize("rename", [{}, {"doc": "document"}])
def test_the_text_may_be_a_field(tmp_path, rename):
    """By the path that the run read, under the name that its column has now; also where two runs are compared."""
    rows = [(id_, text, prediction) for id_, text, prediction in ROWS[:30]]
    column = {rename.get("doc", "doc"): [{"body": f"of the field: {text}"} for _, text, _ in rows]}
    folders = [write_output(tmp_path / name, rows, **column) for name in ("one", "other")]
    for folder in folders:
        manifest = storage.read_json(f"{folder}/_manifest.json")
        manifest["config"]["input"] |= {"text_column": "doc.body", "rename": rename}
        storage.write_json(f"{folder}/_manifest.json", manifest)
    (one, other) = map(open_output, folders)
    texts = [sample.text for sample in read_rows(one, [(0, row) for row in range(30)], "id")]
    assert texts == [f"of the field: {text}" for _, text, _ in rows]
    assert compare(one, other, [30], [30], 1)[0].rows == 30
