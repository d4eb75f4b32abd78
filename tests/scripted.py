"""The extraction job over a scripted predictor: real Ray, real Parquet, real processes, no model.

`python scripted.py CONFIG` runs the job as the command line does, but for the predictor; kill it wherever you like.
Every prediction is written down in the folder NER_BATCH_SCRIPTED_LOG, so a test can see what was computed twice.
"""

import asyncio
import os
import re
import sys
import uuid
from pathlib import Path

from ner_batch.data import Entity, Prediction, Status

POISON = "POISON"


class Scripted:
    """Finds capitalised words, in about a millisecond each. A text that holds POISON takes the process down."""

    def __init__(self):
        self.log = Path(os.environ["NER_BATCH_SCRIPTED_LOG"]) / uuid.uuid4().hex
        self.delay = float(os.environ.get("NER_BATCH_SCRIPTED_DELAY", "0.001"))

    async def predict(self, texts, progress=None):
        await asyncio.sleep(self.delay * len(texts))
        if any(POISON in (text or "") for text in texts):
            os._exit(1)
        with self.log.open("a") as log:
            log.write("".join(f"{text}\n" for text in texts))
        if progress:
            progress(len(texts), 0)
        return [predict_one(text) for text in texts]


def predict_one(text):
    if not text:
        return Prediction(status=Status.EMPTY)
    words = re.finditer(r"[A-Z]\w+", text)
    return Prediction(tuple(Entity(m.start(), m.end(), "NAME", m[0]) for m in words))


def main():
    from rich.console import Console

    from ner_batch.cli import outcome
    from ner_batch.config import ExtractConfig, load
    from ner_batch.extract import job, plan

    config = load(ExtractConfig, sys.argv[1], sys.argv[2:])
    sys.exit(outcome(lambda: job.run(job.resume(plan.prepare(config)), Console(soft_wrap=True), Scripted)))


if __name__ == "__main__":
    main()
