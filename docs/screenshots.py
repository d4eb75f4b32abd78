"""Takes the pictures of docs/report.md: `python docs/screenshots.py demo-output`, after `ner-batch demo`."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from outputs import write_output  # noqa: E402

from ner_batch.cli import main  # noqa: E402
from ner_batch.data import Entity, Prediction, Ungrounded  # noqa: E402

IMAGES = ROOT / "docs" / "images"
WIDTH, SCALE = 1280, 1.5
COLOURS = 128
"""Of a picture's palette: a page has few, and is a third as large."""

# Sentences of our own in scripts that the demo's texts do not have; (surface, type, score) of each.
SCRIPTS: tuple[tuple[str, str, tuple[tuple[str, str, float], ...]], ...] = (
    (
        "ar-1",
        "وصلت ليلى حداد يوم الثلاثاء إلى مطار القاهرة الدولي، ثم سافرت إلى New York مع وفد من جامعة الإسكندرية.",
        (
            ("ليلى حداد", "PER", 0.97),
            ("مطار القاهرة الدولي", "FAC", 0.91),
            ("القاهرة", "LOC", 0.83),
            ("New York", "LOC", 0.98),
            ("جامعة الإسكندرية", "ORG", 0.94),
            ("الإسكندرية", "LOC", 0.71),
        ),
    ),
    (
        "he-1",
        "דנה לוי מן האוניברסיטה העברית בירושלים נסעה לחיפה.",
        (
            ("דנה לוי", "PER", 0.96),
            ("האוניברסיטה העברית בירושלים", "ORG", 0.88),
            ("ירושלים", "LOC", 0.79),
            ("חיפה", "LOC", 0.93),
        ),
    ),
    (
        "zh-1",
        "王小明，男，1963年出生，北京物资学院客座副教授，2004年起任上海新华书店有限公司董事长。",
        (
            ("王小明", "PER", 0.99),
            ("北京物资学院", "ORG", 0.97),
            ("北京", "LOC", 0.66),
            ("上海新华书店有限公司", "ORG", 0.95),
            ("客座副教授", "TITLE", 0.9),
            ("董事长", "TITLE", 0.93),
        ),
    ),
    (
        "en-1",
        "Zoë Müller of the University of California at Berkeley campus choir sang in Łódź.",
        (
            ("Zoë Müller", "PER", 0.98),
            ("University of California at Berkeley", "ORG", 0.9),
            ("California", "LOC", 0.62),
            ("Berkeley campus", "FAC", 0.41),
            ("Łódź", "LOC", 0.99),
        ),
    ),
)


def write_scripts(folder: Path) -> None:
    """An output of texts in several scripts, with nested entities and ones that cross."""
    rows = []
    for id_, text, mentions in SCRIPTS:
        starts = [(text.index(surface), surface, type_, score) for surface, type_, score in mentions]
        entities = sorted(Entity(start, start + len(s), type_, s, score) for start, s, type_, score in starts)
        missing = (Ungrounded("Atlantis", "LOC", "not in text"),) if id_ == "en-1" else ()
        rows.append((id_, text, Prediction(tuple(entities), missing, prompt_tokens=212, completion_tokens=38)))
    write_output(folder, rows)


def picture(page: Page, name: str, height: int, from_element: str | None = None) -> None:
    """A PNG of what is seen, from an element on."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    if from_element:
        page.locator(from_element).evaluate("(node) => scrollTo(0, node.getBoundingClientRect().top + scrollY)")
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    few = image.quantize(COLOURS, dither=Image.Dither.NONE)
    IMAGES.mkdir(exist_ok=True)
    few.save(IMAGES / name, optimize=True)
    sys.stdout.write(f"{name}: {(IMAGES / name).stat().st_size / 1000:.0f} kB\n")


def open_page(browser: Browser, path: str, colours: str) -> Page:
    """A page in light or dark."""
    options = {"color_scheme": colours, "device_scale_factor": SCALE}
    page = browser.new_context(**options).new_page()
    page.goto(Path(path).absolute().as_uri())
    return page


def take(demo: Path, chromium: str) -> None:
    """All pictures; paths on them are those that a reader of the README has."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        os.chdir(folder)
        shutil.copytree(demo / "entities", "demo-output/entities")  # with the times of its files
        write_scripts(Path("scripts"))
        gold = ("--gold", str(demo / "gold" / "test.parquet"), "--id-column", "doc_id")
        for arguments in (
            ("demo-output/entities", "--id-column", "doc_id", "--out", "plain.html"),
            ("demo-output/entities", *gold, "--out", "gold.html"),
            ("scripts", "--out", "scripts.html"),
        ):
            try:
                main("report", *arguments)
            except SystemExit as ended:
                assert not ended.code, arguments  # noqa: PT017 - how the command line ends
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        picture(open_page(browser, "plain.html", "light"), "report-light.png", 1280)
        dark = open_page(browser, "plain.html", "dark")
        dark.set_viewport_size({"width": WIDTH, "height": 900})
        dark.locator("#rows").evaluate("(node) => scrollTo(0, node.getBoundingClientRect().top + scrollY)")
        dark.locator("article mark").nth(3).hover()
        picture(dark, "report-dark.png", 900)
        scored = open_page(browser, "gold.html", "light")
        scored.get_by_label("Order").select_option("errors")
        picture(scored, "report-gold.png", 1240, "section[aria-labelledby=gold-title]")
        picture(open_page(browser, "scripts.html", "light"), "report-scripts.png", 640, "#rows")
        os.chdir(ROOT)


if __name__ == "__main__":
    take(Path(sys.argv[1]).resolve(), os.environ.get("NER_BATCH_CHROMIUM") or shutil.which("chromium") or "chromium")
