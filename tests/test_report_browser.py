"""The report's page in a real browser: filters, search, pages, keys, hovering, colours, and rows that attack it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from outputs import corpus, row, write_output
from test_report_page import HOSTILE, gold_of

from ner_batch.data import Entity, Prediction, Status, Ungrounded
from ner_batch.report.job import build, prepare
from ner_batch.report.settings import ReportConfig

CHROMIUM = os.environ.get("NER_BATCH_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium: install one, or name it in NER_BATCH_CHROMIUM", allow_module_level=True)

from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402

RTL = "قال عمر حداد يوم الثلاثاء في New York إن"
CJK = "常建良，男，1963年出生，高级工程师"
ASTRAL = "\U0001d54f\U0001f600 Zoë met \U0001f468\u200d\U0001f469\u200d\U0001f467 Anna"
NESTED = "the University of California at Berkeley campus"


def spans(text, *mentions):
    """Entities of a text by surface."""
    return tuple(Entity(text.index(s), text.index(s) + len(s), t, s, *more) for s, t, *more in mentions)


SPECIAL = [
    ("nested", NESTED, Prediction(spans(NESTED, ("University of California at Berkeley", "ORG", 0.91, True), ("California", "LOC", 0.4, False), ("Berkeley campus", "FAC", 0.8)))),
    ("astral", ASTRAL, Prediction(spans(ASTRAL, ("Zoë", "PER"), ("Anna", "PER")))),
    ("rtl", RTL, Prediction(spans(RTL, ("عمر حداد", "PER"), ("New York", "LOC")))),
    ("cjk", CJK, Prediction(spans(CJK, ("常建良", "PER")))),
    ("long", "x" * 5000 + " Anna " + "y" * 5000, Prediction((Entity(5001, 5005, "PER", "Anna", 0.7),))),
    ("deep", "abcdefghij" * 3, Prediction(tuple(Entity(n, 30 - n, f"T{n}", ("abcdefghij" * 3)[n : 30 - n]) for n in range(14)))),
    ("bad", "Anna", Prediction((), (Ungrounded("Atlantis", "LOC", "not in text"),), Status.FAILED, "the engine could not answer")),
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Files of pages by name: rows of all sorts with gold and another run; rows that attack; very many rows."""
    folder = tmp_path_factory.mktemp("pages")
    rows = [*SPECIAL, *corpus(300)]
    out = write_output(folder / "out", rows)
    gold = [(i, t, replace(p, entities=p.entities[1:])) for i, t, p in rows]
    pq.write_table(gold_of(gold), folder / "gold.parquet")
    hostile = [
        (words, f"{words} and more", Prediction((Entity(0, len(words), words, words, 0.5),), (Ungrounded(words, words, words),), Status.PARTIAL, words))
        for words in HOSTILE
    ]  # fmt: skip
    many = [row(f"r{n}", f"Name{n} came to Oslo", (f"Name{n}", f"T{n % 50}"), ("Oslo", "LOC")) for n in range(10_000)]
    made = {
        "plain": ReportConfig(folder=out),
        "gold": ReportConfig(folder=out, gold=str(folder / "gold.parquet")),
        "against": ReportConfig(folder=out, against=write_output(folder / "other", gold, unit_rows=70)),
        "hostile": ReportConfig(folder=write_output(folder / "hostile<b>", hostile)),
        "many": ReportConfig(folder=write_output(folder / "many", many, unit_rows=5000), rows=10_000),
    }
    for name, config in made.items():
        (folder / f"{name}.html").write_bytes(build(prepare(config)))
    return folder


@pytest.fixture
def show(browser, pages):
    """Opens a page. At the end nothing was asked of a network, nothing was logged, and no script of a row ran."""
    opened, problems = [], []

    def open_page(name, **options) -> Page:
        context = browser.new_context(**options)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on(
            "request",
            lambda request: problems.append(request.url) if not request.url.startswith(("file:", "data:")) else None,
        )
        page.goto((pages / f"{name}.html").as_uri())
        opened.append(page)
        return page

    yield open_page
    for page in opened:
        assert page.evaluate("window.hacked") is None
        page.context.close()
    assert problems == []


def article(page, id_):
    """A row that is shown."""
    return page.locator("article", has=page.locator(".id", has_text=id_)).first


def box(page, name):
    """A filter's box."""
    return page.locator("#filters").get_by_role("checkbox", name=name)


def shown(page):
    """What stands above the rows."""
    return page.locator("#count")


def test_filters_search_and_pages(show):
    """Each narrows the rows; what was cleared is back; pages go on."""
    page = show("plain")
    expect(shown(page)).to_have_text("1–50 of 307 rows")
    page.get_by_role("button", name="Next").first.click()
    expect(shown(page)).to_have_text("51–100 of 307 rows")
    box(page, "failed").check()
    expect(page.locator("article").first).to_contain_text("failed")
    expect(page.locator("article .status-failed")).to_have_count(page.locator("article").count())
    page.get_by_role("button", name="Clear the filters").click()
    expect(shown(page)).to_have_text("1–50 of 307 rows")
    box(page, "FAC").check()
    expect(shown(page)).to_have_text("1–1 of 1 row")
    expect(page.locator("mark.faint > .tag", has_text="ORG")).to_be_visible()
    page.get_by_role("button", name="Clear the filters").click()
    box(page, "ungrounded mentions").check()
    expect(article(page, "bad")).to_contain_text("Atlantis")
    page.get_by_role("button", name="Clear the filters").click()
    page.get_by_label("Search texts and ids").fill("BERKELEY")
    expect(shown(page)).to_have_text("1–1 of 1 row")
    assert page.evaluate("[...CSS.highlights.get('hit')].map(String)") == ["Berkeley"]
    page.get_by_label("Search texts and ids").fill("nobody has written this")
    expect(page.locator("#list")).to_contain_text("No row has all of this")
    page.locator("#list").get_by_role("button").click()
    expect(shown(page)).to_have_text("1–50 of 307 rows")


def test_scores_narrow_the_rows(show):
    """By a range; the rest of a row's entities are faint; the lowest score may go first."""
    page = show("plain")
    page.get_by_label("from").fill("0.3")
    page.get_by_label("to", exact=True).fill("0.45")
    scores = page.evaluate("[...document.querySelectorAll('mark:not(.faint)')].map((m) => m.entity[3])")
    assert scores
    assert all(0.3 <= score <= 0.45 for score in scores)
    page.get_by_label("from").fill("0")
    page.get_by_label("to", exact=True).fill("1")
    page.get_by_label("Order").select_option("score")
    first = page.evaluate(
        "Math.min(...[...document.querySelectorAll('article')][0].querySelectorAll('mark').values().map((m) => m.entity[3]))"
    )
    assert first == page.evaluate(
        "Math.min(...JSON.parse(document.getElementById('data').textContent).rows.flatMap((r) => r.own.map((e) => e[3] ?? 1)))"
    )


def test_nested_and_crossing_entities_are_boxes(show):
    """One inside another lies in its box; one that crosses its end is in two pieces that are one."""
    page = show("plain")
    outer = article(page, "nested").locator("mark", has_text="University").first
    expect(outer.locator("mark", has_text="California")).to_have_class("entity rejected")
    pieces = article(page, "nested").locator("mark").filter(has_text="Berkeley").locator("visible=true")
    crossing = page.evaluate(
        "[...document.querySelectorAll('article')[0].querySelectorAll('mark')].filter((m) => m.entity[2] === JSON.parse(document.getElementById('data').textContent).types.indexOf('FAC')).map((m) => m.childNodes[0].data)"
    )
    assert crossing == ["Berkeley", " campus"]
    assert pieces.count() >= 2
    article(page, "nested").locator("mark.continued").hover()
    expect(article(page, "nested").locator("mark.active")).to_have_count(2)
    expect(article(page, "deep")).to_contain_text("deeper nested")
    expect(article(page, "deep").locator("mark")).to_have_count(14)


def test_what_is_hovered_or_focused_tells_its_score(show):
    """By mouse, and by Tab from the row that keys have reached."""
    page = show("plain")
    tip = page.get_by_role("tooltip")
    article(page, "nested").locator("mark", has_text="California").last.hover()
    expect(tip).to_contain_text("score0.4verificationrejectedcharacters18–28")
    page.mouse.move(0, 0)
    expect(tip).to_be_hidden()
    page.keyboard.press("j")
    expect(article(page, "nested")).to_be_focused()
    page.keyboard.press("Tab")
    expect(tip).to_contain_text("typeORGscore0.91verificationverified")
    assert page.evaluate("document.activeElement.getAttribute('aria-describedby')") == "tip"
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_keys(show):
    """Rows, pages, search; in a field they are letters."""
    page = show("plain")
    for _ in range(3):
        page.keyboard.press("j")
    page.keyboard.press("k")
    expect(article(page, "astral")).to_be_focused()
    assert page.locator("article[tabindex='0']").count() == 1
    page.keyboard.press("n")
    expect(shown(page)).to_have_text("51–100 of 307 rows")
    page.keyboard.press("k")
    page.keyboard.press("k")
    expect(shown(page)).to_have_text("1–50 of 307 rows")
    expect(page.locator("article").last).to_be_focused()
    page.keyboard.press("/")
    page.keyboard.type("jd/kn")
    expect(page.get_by_label("Search texts and ids")).to_have_value("jd/kn")
    page.keyboard.press("Escape")
    expect(page.get_by_label("Search texts and ids")).not_to_be_focused()


def test_offsets_are_code_points_and_scripts_set_themselves(show):
    """Characters beyond U+FFFF before an entity; right-to-left text runs so, with its Latin inside."""
    page = show("plain")
    surfaces = "(id) => [...document.querySelectorAll('article')].find((a) => a.querySelector('.id').textContent === id).querySelectorAll('mark').values().map((m) => m.childNodes[0].data).toArray()"
    assert page.evaluate(surfaces, "astral") == ["Zoë", "Anna"]
    assert page.evaluate(surfaces, "cjk") == ["常建良"]
    assert page.evaluate(surfaces, "rtl") == ["عمر حداد", "New York"]
    assert article(page, "astral").locator(".text").inner_text().startswith("\U0001d54f\U0001f600 Zoë")
    directions = {
        id_: article(page, id_).locator(".text").evaluate("(node) => getComputedStyle(node).direction")
        for id_ in ("rtl", "cjk")
    }
    assert directions == {"rtl": "rtl", "cjk": "ltr"}


def test_a_long_text_is_folded_and_opens(show):
    """What is left out is counted; a click, and it is there."""
    page = show("plain")
    long = article(page, "long")
    expect(long.locator(".gap").first).to_have_text("⋯ 4,591 characters ⋯")
    expect(long.locator("mark")).to_have_text("AnnaPER")
    long.get_by_role("button", name="Show more of the text").click()
    expect(long.locator(".gap")).to_have_count(0)
    expect(long.get_by_role("button", name="Fold the text")).to_have_attribute("aria-expanded", "true")
    assert len(long.locator(".text").inner_text()) >= 10_006


def test_dark_and_light(show):
    """The system's colours, until the switch says otherwise; then it is remembered."""
    paper = "getComputedStyle(document.body).backgroundColor"
    light, dark = show("plain", color_scheme="light"), show("plain", color_scheme="dark")
    colours = light.evaluate(paper), dark.evaluate(paper)
    assert colours[0] != colours[1]
    dark.get_by_role("button", name="Switch to light colours").click()
    assert dark.evaluate(paper) == colours[0]
    dark.reload()
    assert dark.evaluate(paper) == colours[0]
    dark.keyboard.press("d")
    assert dark.evaluate(paper) == colours[1]


def test_gold_stands_above_what_was_predicted(show):
    """Where they differ; kinds of error are words, and filters."""
    page = show("gold")
    nested = article(page, "nested")
    expect(nested.locator(".side-name")).to_have_text(["gold", "predicted"])
    expect(nested.locator(".side-own .kind", has_text="type and boundary")).to_be_visible()
    box(page, "spurious").check()
    expect(page.locator("article .judgement.wrong")).to_have_count(page.locator("article").count())
    page.get_by_label("Order").select_option("errors")
    expect(page.locator("article").first).to_contain_text("1 error")


def test_two_runs_side_by_side(show):
    """Rows that differ have both; the filter leaves them alone."""
    page = show("against")
    expect(article(page, "nested").locator(".side-name")).to_have_text(["this run", "other run"])
    expect(article(page, "bad").locator(".judgement")).to_have_text("same in both")
    box(page, "runs differ").check()
    expect(page.locator("article .judgement.wrong")).to_have_count(page.locator("article").count())
    expect(article(page, "nested").locator(".side-own .kind")).to_contain_text(["only here"])


def test_hostile_rows_stay_text(show):
    """No element of theirs, no script, no order of characters; see also what `show` looks at."""
    page = show("hostile")
    expect(shown(page)).to_have_text(f"1–{len(HOSTILE)} of {len(HOSTILE)} rows")
    texts = page.locator("article .text").all_inner_texts()
    assert texts[0].startswith("</script><script>window.hacked=1</script>")
    assert page.locator("article img, article script, #filters img").count() == 0
    assert any("RLO" in text and "\u202e" not in text for text in texts)
    box(page, "__proto__").check()
    expect(shown(page)).to_have_text("1–1 of 1 row")
    for mark in page.locator("article mark").all():
        mark.hover()
    expect(page.get_by_role("tooltip")).to_contain_text("__proto__")


def test_very_many_rows_are_few_nodes(show):
    """10,000 rows: a page's worth of nodes, and types can be looked for."""
    page = show("many")
    expect(shown(page)).to_have_text("1–50 of 10,000 rows")
    assert page.evaluate("document.querySelectorAll('*').length") < 3000
    page.get_by_label("Find a type").fill("t49")
    box(page, "T49").check()
    expect(shown(page)).to_have_text("1–50 of 200 rows")
    page.get_by_label("Search texts and ids").fill("name9949 ")
    expect(shown(page)).to_have_text("1–1 of 1 row")
    assert page.evaluate("document.querySelectorAll('*').length") < 3000


def test_what_is_shown_has_names(show):
    """Fields, buttons and lists have accessible names; every image of figures has one."""
    page = show("gold")
    unnamed = """() => [...document.querySelectorAll("input, button, select, svg[role=img], section, form")].filter((node) => {
        const label = node.labels && node.labels.length ? node.labels[0].textContent : "";
        const by = node.getAttribute("aria-labelledby");
        return !(label || node.getAttribute("aria-label") || node.textContent.trim() || (by && document.getElementById(by)));
    }).map((node) => node.outerHTML.slice(0, 100))"""
    assert page.evaluate(unnamed) == []
    page.emulate_media(media="print")
    expect(page.locator("#filters")).to_be_hidden()
    expect(article(page, "nested")).to_be_visible()
