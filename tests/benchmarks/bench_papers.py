"""Adapters and tables of the papers on one GPU, side by side. Not run through yet.

    python tests/benchmarks/bench_papers.py OUT --qwen MODEL --smollm2 MODEL --encoder MODEL [--only resume ncbi ...]

An encoder for Chinese first, then lanes beside each other, for small models leave a GPU idle while their kernels are
launched; the commands of a lane run one after another. A training whose adapter is there is not repeated, nor a cell
that is read. Gold sets and statutes are looked for in NER_BATCH_DATA. Each command's output lies in OUT/logs, its seconds
in OUT/seconds.tsv. ``--dry-run`` checks every training and prints its size; those with demonstrations by vectors in
Chinese need the encoder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import yaml

from ner_batch.adapter import MANIFEST

HERE = Path(__file__).parent
GOLD = HERE / "gold"
DATA = Path(os.environ.get("NER_BATCH_DATA", HERE.parents[2] / "shared" / "data"))
# Several engines share the card: a KV cache of its own size each, as vLLM's measure of what is free is wrong meanwhile.
ENGINE = (
    "engine.dtype=bfloat16",
    "engine.max_num_seqs=256",
    "engine.gpu_memory_utilization=0.05",
    "engine.extra={kv_cache_memory_bytes: 3000000000}",
)
NER_BATCH = ("-m", "ner_batch")
Command = tuple[str, ...]


class Bench:
    """Where things lie, and the lanes as lists of `ner-batch` commands."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.out = options.out.resolve()
        self.qwen, self.smollm2, self.encoder = options.qwen, options.smollm2, options.encoder
        self.dry_run = options.dry_run
        self.zh_encoder = str(self.out / "encoder-zh")

    def train(self, config: str, name: str, model: str, gold: Path, *overrides: str) -> Command:
        """One adapter, its dev F1 measured at the end alone."""
        return (
            *NER_BATCH,
            "train",
            str(GOLD / config),
            f"base.model={model}",
            "base.dtype=auto",
            f"output={self.out / name}",
            f"run.name={name}",
            f"run.storage={self.out / 'runs'}",
            f"gold.train={gold / 'train.parquet'}",
            f"gold.dev={gold / 'dev.parquet'}",
            "evaluation.every=100000",
            *overrides,
        )

    def ablate(
        self, config: str, name: str, model: str, gold: Path, readers: dict[str, str], *overrides: str
    ) -> Command:
        """One table; ``readers`` are names of adapters by the name they have in it."""
        adapters = ", ".join(f"{reader}: {self.out / adapter}" for reader, adapter in readers.items())
        return (
            *NER_BATCH,
            "ablate",
            str(GOLD / config),
            f"engine.model={model}",
            *ENGINE,
            f"gold.test={gold / 'test.parquet'}",
            f"gold.examples={gold / 'train.parquet'}",
            f"output={self.out / name}",
            f"adapters={{{adapters}}}",
            *overrides,
        )

    def curve_training(self) -> Path:
        """train-curve-ncbi.yaml with the base model of this run."""
        values = yaml.safe_load((GOLD / "train-curve-ncbi.yaml").read_text())
        values["base"]["model"] = self.smollm2
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "train-curve.yaml").write_text(yaml.safe_dump(values))
        return self.out / "train-curve.yaml"

    def zh_encoder_training(self) -> Command:
        """The encoder of the Chinese tables: the language model's states, by unsupervised SimCSE on statutes."""
        return (
            *NER_BATCH,
            "train-encoder",
            str(HERE.parents[1] / "jobs" / "train-encoder.yaml"),
            f"base={{model: {self.qwen}, dropout: 0.1}}",
            f"input={{path: {DATA / 'raw_zh_laws'}, sentences: 20000, bytes: 4000000}}",
            f"output={self.zh_encoder}",
            "optimiser={steps: 200, learning_rate: 1.0e-5}",
        )

    def lanes(self) -> dict[str, list[Command]]:
        """Every lane's commands, in their order."""
        resume, weibo = DATA / "resume", DATA / "weibo"
        ncbi, wnut, genia = (
            HERE.parents[1] / "ner_batch" / "demo" / "files" / "gold",
            DATA / "wnut17",
            DATA / "genia_devtest",
        )
        similar = f"encoder: {self.zh_encoder}, k: {{0: 0.5, 4: 0.5}}"
        mixed = f"demonstrations={{kind: [random, lexical, sentence, entity], {similar}}}"
        all_kinds = "retrieval: [none, random, lexical, sentence, entity], k: [4], decoding: [free]"
        steps = ("packing.tokens=2048", "optimiser.batch_tokens=4096")

        def qwen(config: str, name: str, gold: Path, *overrides: str) -> Command:
            return self.train(config, name, self.qwen, gold, *overrides)

        def smollm2(config: str, name: str, gold: Path, *overrides: str) -> Command:
            return self.train(config, name, self.smollm2, gold, *overrides)

        return {
            "resume": [
                qwen(
                    "train-resume.yaml",
                    "resume-json",
                    resume,
                    "format=json",
                    "optimiser.epochs=3",
                    "packing.tokens=2048",
                    "optimiser.batch_tokens=2048",
                    "evaluation.examples=100",
                ),
                qwen(
                    "train-resume.yaml",
                    "resume-json-shots",
                    resume,
                    "format=json",
                    "optimiser.epochs=2",
                    *steps,
                    mixed,
                    "evaluation.examples=100",
                ),
                qwen(
                    "train-resume.yaml",
                    "resume-mrc",
                    resume,
                    "format=mrc",
                    "optimiser.epochs=2",
                    *steps,
                    "evaluation.examples=40",
                ),
                qwen(
                    "train-resume.yaml",
                    "resume-mrc-shots",
                    resume,
                    "format=mrc",
                    "optimiser.epochs=1",
                    *steps,
                    mixed,
                    "evaluation.examples=20",
                ),
                self.ablate(
                    "ablate-resume-qwen.yaml",
                    "table-resume",
                    self.qwen,
                    resume,
                    {"json": "resume-json", "mrc": "resume-mrc"},
                ),
                self.ablate(
                    "ablate-resume-qwen.yaml",
                    "table-resume-shots",
                    self.qwen,
                    resume,
                    {"json": "resume-json-shots", "mrc": "resume-mrc-shots"},
                    f"axes={{reader: [json, mrc], format: [json, mrc], {all_kinds}}}",
                    f"encoder={self.zh_encoder}",
                    "engine.max_model_len=2048",
                ),
            ],
            "weibo": [
                qwen(
                    "train-resume.yaml",
                    "weibo-json",
                    weibo,
                    "format=json",
                    "optimiser.epochs=4",
                    "task=" + str(GOLD / "weibo.yaml"),
                    "packing.tokens=2048",
                    "optimiser.batch_tokens=2048",
                    mixed,
                    "evaluation.examples=100",
                ),
                qwen(
                    "train-resume.yaml",
                    "weibo-mrc",
                    weibo,
                    "format=mrc",
                    "optimiser.epochs=2",
                    "task=" + str(GOLD / "weibo.yaml"),
                    *steps,
                    mixed,
                    "evaluation.examples=20",
                ),
                self.ablate(
                    "ablate-weibo.yaml",
                    "table-weibo",
                    self.qwen,
                    weibo,
                    {"json": "weibo-json", "mrc": "weibo-mrc"},
                    f"axes={{reader: [json, mrc], format: [json, mrc], {all_kinds}}}",
                    f"encoder={self.zh_encoder}",
                    "engine.max_model_len=2048",
                ),
            ],
            "gpt-ner-zh": [
                qwen(
                    "train-resume.yaml",
                    "resume-gpt-ner",
                    resume,
                    "format=gpt-ner",
                    "optimiser.epochs=0.6",
                    *steps,
                    mixed,
                    "augmentation={negatives: 0.3, verification: 1}",
                    "evaluation.examples=20",
                ),
                self.ablate(
                    "ablate-resume-qwen.yaml",
                    "table-gpt-ner-zh",
                    self.qwen,
                    resume,
                    {"gpt-ner": "resume-gpt-ner"},
                    "axes={reader: [gpt-ner], format: [gpt-ner], decoding: [free], retrieval: [none, random, sentence, entity], "
                    "k: [4], verification: [none, zero-shot, few-shot]}",
                    f"encoder={self.zh_encoder}",
                    "engine.max_model_len=2048",
                    "gold.limit=150",
                ),
            ],
            "ncbi": [
                *(
                    smollm2(
                        "train-ncbi.yaml",
                        f"ncbi-{form}",
                        ncbi,
                        f"format={form}",
                        "optimiser.epochs=3",
                        "evaluation.examples=100",
                    )
                    for form in ("json", "mrc", "inline", "gpt-ner")
                ),
                self.ablate(
                    "ablate-ncbi.yaml",
                    "table-ncbi",
                    self.smollm2,
                    ncbi,
                    {form: f"ncbi-{form}" for form in ("json", "mrc", "inline", "gpt-ner")},
                    "gold.limit=940",
                    "axes={reader: [json, mrc, inline, gpt-ner], format: [json, mrc, inline, gpt-ner], decoding: [free]}",
                ),
            ],
            "gpt-ner-en": [
                smollm2(
                    "train-ncbi.yaml",
                    "ncbi-verified",
                    ncbi,
                    "format=gpt-ner",
                    "optimiser.epochs=2",
                    f"demonstrations={{kind: [random, sentence, entity], encoder: {self.encoder}, k: {{0: 0.5, 4: 0.5}}}}",
                    "augmentation.verification=1",
                    "evaluation.examples=100",
                ),
                self.ablate(
                    "ablate-gptner.yaml",
                    "table-gpt-ner-en",
                    self.smollm2,
                    ncbi,
                    {"gpt-ner": "ncbi-verified"},
                    "axes={reader: [gpt-ner], format: [gpt-ner], decoding: [free], retrieval: [none, random, sentence, entity], "
                    "k: [4], verification: [none, zero-shot, few-shot]}",
                    f"encoder={self.encoder}",
                    "gold.limit=400",
                ),
            ],
            "curve": [
                self.ablate(
                    "curve-ncbi.yaml",
                    "curve",
                    self.smollm2,
                    ncbi,
                    {},
                    "curve.seeds=3",
                    "gold.limit=400",
                    "curve.steps={8: 20, 32: 40, 128: 80, 512: 120}",
                    f"curve.train={self.curve_training()}",
                ),
            ],
            "wnut17": [
                *(
                    smollm2(
                        "train-wnut17.yaml",
                        f"wnut17-{form}",
                        wnut,
                        f"format={form}",
                        f"optimiser.epochs={epochs}",
                        "evaluation.examples=60",
                    )
                    for form, epochs in (("json", 6), ("mrc", 3), ("gpt-ner", 2))
                ),
                self.ablate(
                    "ablate-wnut17.yaml",
                    "table-wnut17",
                    self.smollm2,
                    wnut,
                    {form: f"wnut17-{form}" for form in ("json", "mrc", "gpt-ner")},
                    "gold.limit=1287",
                    "axes={reader: [json, mrc, gpt-ner], format: [json, mrc, gpt-ner], decoding: [free]}",
                ),
            ],
            "genia": [
                *(
                    smollm2(
                        "train-wnut17.yaml",
                        f"genia-{form}",
                        genia,
                        f"format={form}",
                        f"optimiser.epochs={epochs}",
                        "task=" + str(GOLD / "genia_devtest.yaml"),
                        f"gold.train={genia / 'dev.parquet'}",
                        "gold.dev=null",
                        "gold.dev_share=0.05",
                        "evaluation.examples=60",
                    )
                    for form, epochs in (("json", 6), ("mrc", 4), ("gpt-ner", 3))
                ),
                self.ablate(
                    "ablate-wnut17.yaml",
                    "table-genia",
                    self.smollm2,
                    genia,
                    {form: f"genia-{form}" for form in ("json", "mrc", "gpt-ner")},
                    "gold.limit=1854",
                    "task=" + str(GOLD / "genia_devtest.yaml"),
                    f"gold.examples={genia / 'dev.parquet'}",
                    "axes={reader: [json, mrc, gpt-ner], format: [json, mrc, gpt-ner], decoding: [free]}",
                ),
            ],
        }


def run(bench: Bench, name: str, lane: list[Command], begun: float) -> None:
    """The commands of a lane, one after another; what one that fails should have left, the next ones miss by name."""
    for number, command in enumerate(lane):
        output = next(word.removeprefix("output=") for word in command if word.startswith("output="))
        if (bench.dry_run and "train" not in command) or ("train" in command and Path(output, MANIFEST).is_file()):
            continue
        clock = time.monotonic()
        log = bench.out / "logs" / f"{name}-{number}.txt"
        with log.open("w") as stream:
            verb = [sys.executable, *command, *(["--dry-run"] if bench.dry_run else [])]
            code = subprocess.run(verb, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode
        now = time.monotonic()
        line = f"{now - begun:.0f}\t{name}\t{number}\t{now - clock:.0f}\t{code}"
        with (bench.out / "seconds.tsv").open("a") as seconds:
            seconds.write(line + "\n")
        print(line, *(log.read_text().splitlines()[-4:] if code or bench.dry_run else []), sep="\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--qwen", default="Qwen/Qwen2.5-Coder-0.5B-Instruct")
    parser.add_argument("--smollm2", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    bench = Bench(options)
    (bench.out / "logs").mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    lanes = {name: lane for name, lane in bench.lanes().items() if not options.only or name in options.only}
    uses_encoder = any(bench.zh_encoder in word for lane in lanes.values() for command in lane for word in command)
    if uses_encoder and not options.dry_run and not Path(bench.zh_encoder).is_dir():
        run(bench, "encoder", [bench.zh_encoder_training()], begun)
    threads = [threading.Thread(target=run, args=(bench, name, lane, begun)) for name, lane in lanes.items()]
    for thread in threads:
        thread.start()
        if options.dry_run:
            thread.join()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
