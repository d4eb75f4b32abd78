"""From a clone to a page of one's own entities: the commands of the README's "Your own texts", timed, in a bare environment.

    python tests/benchmarks/bench_walk.py MODEL OUT

Forty mails in two CSV files with columns of other names than the defaults; a clone of this checkout's last commit, a new
virtual environment, an empty home. A person's time to read is not in it. Variables of package indexes and proxies stay.
"""

import argparse
import csv
import os
import random
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ROWS, FILES = 40, 2
NETWORK = ("PIP_", "UV_", "SSL_", "REQUESTS_", "HTTP", "http", "NO_PROXY", "no_proxy")
PEOPLE, FIRMS = ("Joana Silva", "Kimio Maki", "Ben Adeyemi", "Lena Vogt"), ("Sony", "Deutsche Telekom", "Garmin", "SAP")
PRODUCTS = ("Alpha 7 IV", "Fenix 6", "LaserJet 400", "Speedport")
SENTENCES = (
    "My {product} shows the wrong time since Monday. Regards, {person}",
    "{firm} unveiled the {product}, and {person} showed its menu live on stage.",
    "Please tell {person} that the {product} of {firm} prints blank pages again.",
    "Where is my refund?",
)


def write_mails(folder: Path) -> None:
    """The CSV files; the same each time."""
    draw = random.Random(0)
    folder.mkdir(parents=True)
    for number in range(FILES):
        with (folder / f"mails-{number}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["ticket_id", "date", "body"])
            for row in range(ROWS // FILES):
                words = {"person": draw.choice(PEOPLE), "firm": draw.choice(FIRMS), "product": draw.choice(PRODUCTS)}
                writer.writerow([f"T-{number}{row:03}", "2026-11-27", draw.choice(SENTENCES).format(**words)])


def main() -> None:
    """Walk; print a table of seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    write_mails(out / "mails")
    (out / "home").mkdir()
    environment = {name: value for name, value in os.environ.items() if name.startswith(NETWORK)}
    environment |= {"HOME": str(out / "home"), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "dumb"}
    clone, project = out / "ner_batch", out / "ner_batch" / "tickets"
    command = str(clone / ".venv" / "bin" / "ner-batch")
    labels = ("PERSON=people, by name", "ORG=companies", "PRODUCT=devices and software, by name")
    places = [
        "--model",
        arguments.model,
        "--input",
        str(out / "mails"),
        "--text-column",
        "body",
        "--id-column",
        "ticket_id",
    ]
    steps = (
        ("git clone", out, ["git", "clone", "--quiet", str(ROOT), str(clone)]),
        ("make install", clone, ["make", "install"]),
        (
            "init",
            clone,
            [command, "init", "tickets", *(word for label in labels for word in ("--label", label)), *places],
        ),
        ("doctor", project, [command, "doctor", "extract.yaml"]),
        ("extract --dry-run", project, [command, "extract", "extract.yaml", "--dry-run"]),
        ("extract", project, [command, "extract", "extract.yaml"]),
        ("report", project, [command, "report", "entities"]),
    )
    print("| step | seconds | its last line |\n|---|---:|---|", flush=True)
    start = time.monotonic()
    for name, folder, words in steps:
        clock = time.monotonic()
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - clock
        assert done.returncode == 0, f"{name}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        (out / f"{name.replace(' ', '-')}.log").write_text(done.stdout + done.stderr)
        lines = done.stdout.strip().splitlines()
        print(f"| {name} | {seconds:.0f} | {lines[-1] if lines else ''} |", flush=True)
    print(f"| in all | {time.monotonic() - start:.0f} | {project / 'entities' / '_report.html'} |")


if __name__ == "__main__":
    main()
