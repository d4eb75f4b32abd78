"""The extraction job over a scripted engine: real Ray, real Parquet, real processes, real prompts, no model.

`python scripted.py CONFIG` runs the job as the command line does, but for the engine; kill it wherever you like.
Every text that is answered is written down in the folder NER_BATCH_SCRIPTED_LOG, so a test can see what was computed
twice. NER_BATCH_SCRIPTED_DELAY is what an answer takes, in seconds; _HARMLESS lets poisoned texts live; _BUG makes the
engine raise what nobody foresaw; _REFUSAL makes it refuse to start, with these words; _KILLED ends its process
at every start; _FAILING makes every answer an error, of these words; _SERIAL lets one batch be answered at a time, as in an engine that is full.
"""

import os
import re
import signal
import sys
import threading
import time
import uuid
from contextlib import nullcontext
from pathlib import Path

from transformers import AutoTokenizer

from ner_batch.data import Completion, Entity, Prediction, Status
from ner_batch.errors import UserError

POISON = "POISON"
MENTION = re.compile(r"[A-Z]\w+")


class ScriptedEngine:
    """Answers every prompt with the capitalised words of its text, in json. A text that holds POISON ends the process."""

    answered, waiting = (0, 0), 0

    def __init__(self, config, _adapters):
        if refusal := os.environ.get("NER_BATCH_SCRIPTED_REFUSAL"):
            raise UserError(refusal)
        if os.environ.get("NER_BATCH_SCRIPTED_KILLED"):
            with (Path(os.environ["NER_BATCH_HOLD"]) / "start.log").open("a") as log:
                log.write(f"{os.getpid()}\n")
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory is short
        self.tokenizer = AutoTokenizer.from_pretrained(config.model)
        self.log = Path(os.environ["NER_BATCH_SCRIPTED_LOG"]) / uuid.uuid4().hex
        self.one_at_a_time = threading.Lock()
        self.delay = float(os.environ.get("NER_BATCH_SCRIPTED_DELAY", "0.001"))

    def generate(self, requests):
        """One answer per request, after some milliseconds each."""
        with self.one_at_a_time if "NER_BATCH_SCRIPTED_SERIAL" in os.environ else nullcontext():
            time.sleep(self.delay * len(requests))
        if os.environ.get("NER_BATCH_SCRIPTED_BUG"):
            return 1 / 0
        if failing := os.environ.get("NER_BATCH_SCRIPTED_FAILING"):
            return [Completion("", "error", 0, 0, error=failing) for _ in requests]
        texts = [self.text_of(request) for request in requests]
        if any(POISON in text for text in texts) and not os.environ.get("NER_BATCH_SCRIPTED_HARMLESS"):
            os._exit(1)
        with self.log.open("a") as log:
            log.write("".join(f"{text}\n" for text in texts))
        return [Completion(answer(text), "stop", 10, 5) for text in texts]

    def close(self):
        """Nothing to stop."""

    def text_of(self, request):
        """The text a prompt asks about: what stands after `Text:` in its last turn."""
        prompt = self.tokenizer.decode(list(request.token_ids))
        return re.search(r"Text:\n(.*?)<\|im_end\|>", prompt[prompt.rindex("Text:") :], re.DOTALL)[1]


def answer(text):
    """The capitalised words of a text, in json."""
    words = ", ".join(f'"{word}"' for word in MENTION.findall(text))
    return f'{{"NAME": [{words}]}}' if words else "{}"


def predict_one(text):
    """What must come out for a text."""
    if not text:
        return Prediction(status=Status.EMPTY)
    entities = tuple(Entity(m.start(), m.end(), "NAME", m[0]) for m in MENTION.finditer(text))
    return Prediction(entities, prompt_tokens=10, completion_tokens=5)


def main():
    from ner_batch.cli import console, exit_code
    from ner_batch.config import load
    from ner_batch.extraction import dryrun, job, plan
    from ner_batch.extraction.settings import ExtractConfig

    arguments = [word for word in sys.argv[1:] if not word.startswith("--")]
    config = load(ExtractConfig, arguments[0], arguments[1:])

    def scripted() -> int:
        work = plan.prepare(config, retry=["failed"] if "--retry" in sys.argv else ())
        run = dryrun.dry_run if "--dry-run" in sys.argv else job.run
        return run(work, console, ScriptedEngine)

    sys.exit(exit_code(scripted))


if __name__ == "__main__":
    main()
