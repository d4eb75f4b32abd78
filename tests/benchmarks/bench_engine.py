"""Three ways to drive vLLM at equal token ids: LLM.generate, our Engine, AsyncLLM. Rows/s and CPU ms per row, interleaved.

    python tests/benchmarks/bench_engine.py --model PATH [--starts 1] [--rounds 4] [--rows 640] [--before CHECKOUT]

Every way lives in a process of its own and they take turns, so that a noisy machine is equally unkind to all. LLM and
Engine run with the engine core in process and in a subprocess; AsyncLLM knows only the latter. Rows come in units of
64: LLM.generate takes one unit after the other (and, as `all`, everything at once), the others have four in flight.
Two processes of the same code
differ by several per cent, however often they are asked: small differences want several --starts. With --before the engine
of another working tree takes its turns too, and nothing else but the two is run: in process only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

UNIT, UNITS_IN_FLIGHT, MAX_LEN, MAX_SEQS = 64, 4, 512, 64
WAYS = ("llm-all", "llm", "engine", "llm-sub", "engine-sub", "async-sub")

Row = tuple[list[int], int]  # token ids and how many to generate at most


def workload(rows: int) -> list[list[Row]]:
    """Units of random prompts of 40 to 120 tokens with answers of 4 to 60: the lengths of sentences and their entities."""
    rng = random.Random(0)
    drawn = [([rng.randrange(5, 300) for _ in range(rng.randint(40, 120))], rng.randint(4, 60)) for _ in range(rows)]
    return [drawn[i : i + UNIT] for i in range(0, rows, UNIT)]


def settings(model: str) -> dict[str, Any]:
    """vLLM's arguments, the same for all ways."""
    return {
        "model": model,
        "dtype": "float32",
        "max_model_len": MAX_LEN,
        "max_num_seqs": MAX_SEQS,
        "max_num_batched_tokens": 2048,
        "enforce_eager": True,
        "enable_prefix_caching": False,  # the workload is repeated
        "disable_log_stats": True,
    }


async def overlapping(units: Sequence[list[Row]], answer: Callable[[list[Row]], Awaitable[int]]) -> int:
    """Answer all units, some at a time; the tokens generated."""
    room = asyncio.Semaphore(UNITS_IN_FLIGHT)

    async def one(unit: list[Row]) -> int:
        async with room:
            return await answer(unit)

    return sum(await asyncio.gather(*map(one, units)))


def llm_way(model: str, unit: int) -> Callable[[list[list[Row]]], int]:
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    llm = LLM(**settings(model))

    def run(units: list[list[Row]]) -> int:
        rows = [row for part in units for row in part]
        tokens = 0
        for i in range(0, len(rows), unit):
            part = rows[i : i + unit]
            params = [SamplingParams(temperature=0.0, max_tokens=n) for _, n in part]
            prompts = [TokensPrompt(prompt_token_ids=ids) for ids, _ in part]
            tokens += sum(len(o.outputs[0].token_ids) for o in llm.generate(prompts, params, use_tqdm=False))
        return tokens

    return run


def engine_way(model: str) -> Callable[[list[list[Row]]], int]:
    from ner_batch.engine.engine import Engine, Request
    from ner_batch.engine.settings import EngineConfig

    fields = settings(model)
    extra = {name: fields.pop(name) for name in ("enable_prefix_caching", "disable_log_stats")}
    engine = Engine(EngineConfig(**fields, extra=extra), adapters=False)

    pool = ThreadPoolExecutor(UNITS_IN_FLIGHT)

    def answer(unit: list[Row]) -> int:
        return sum(c.completion_tokens for c in engine.generate([Request(ids, n) for ids, n in unit]))

    return lambda units: sum(pool.map(answer, units))


def async_way(model: str) -> Callable[[list[list[Row]]], int]:
    from vllm import AsyncEngineArgs, SamplingParams
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    loop = asyncio.new_event_loop()
    names = iter(range(10**9))

    async def start() -> AsyncLLM:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**settings(model)))

    llm = loop.run_until_complete(start())

    async def one(row: Row) -> int:
        params = SamplingParams(temperature=0.0, max_tokens=row[1], output_kind=RequestOutputKind.FINAL_ONLY)
        async for output in llm.generate(tokens_input(row[0]), params, str(next(names))):
            last = output
        return len(last.outputs[0].token_ids)

    async def answer(unit: list[Row]) -> int:
        return sum(await asyncio.gather(*map(one, unit)))

    return lambda units: loop.run_until_complete(overlapping(units, answer))


def cpu_seconds() -> float:
    """CPU time of this process and its living children."""
    me = psutil.Process()
    times = [p.cpu_times() for p in (me, *me.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def child(way: str, model: str, rows: int) -> None:
    """Start one way, then run the workload each time a line arrives; one JSON line per run."""
    units = workload(rows)
    match way.removesuffix("-sub"):
        case "llm-all":
            run = llm_way(model, rows)
        case "llm":
            run = llm_way(model, UNIT)
        case "engine":
            run = engine_way(model)
        case _:
            run = async_way(model)
    run(units[:1])
    print("RESULT ready", flush=True)
    for _ in sys.stdin:
        wall, cpu, tokens = time.perf_counter(), cpu_seconds(), run(units)
        figures = {"rows_s": rows / (time.perf_counter() - wall), "cpu_ms": (cpu_seconds() - cpu) / rows * 1000}
        print("RESULT " + json.dumps(figures | {"tokens": tokens}), flush=True)
    for process in psutil.Process().children(recursive=True):
        process.kill()  # the engine's own processes outlive a parent that leaves without a word
    os._exit(0)


def answer_of(process: subprocess.Popen[str]) -> str:
    """The next result line of a child."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("RESULT "):
            return line.removeprefix("RESULT ")
    raise RuntimeError(f"a way died with code {process.wait()}")


def start(way: str, args: argparse.Namespace) -> subprocess.Popen[str]:
    checkout = args.before.resolve() if way == "before" else Path(__file__).parents[2]
    script = checkout / "tests" / "benchmarks" / Path(__file__).name
    way = "engine" if way == "before" else way
    command = [sys.executable, str(script), "--model", args.model, "--rows", str(args.rows), "--way", way]
    env = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(way.endswith("-sub"))),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(checkout),
    }
    process = subprocess.Popen(
        command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    answer_of(process)
    return process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        child(args.way, args.model, args.rows)
    ways = ("engine", "before") if args.before else WAYS
    results: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(args.starts):
        order = sorted(ways, reverse=number % 2 == 0)
        processes = {way: start(way, args) for way in order}
        for _ in range(args.rounds):
            order.reverse()
            for way in order:
                stdin = processes[way].stdin
                assert stdin is not None
                print(file=stdin, flush=True)
                results[way].append(json.loads(answer_of(processes[way])))
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)
    for way, runs in results.items():
        rates = [run["rows_s"] for run in runs]
        cpu = statistics.median(run["cpu_ms"] for run in runs)
        ours = results["engine-sub" if way.endswith("-sub") else "engine"]
        share = statistics.median(run["rows_s"] / our["rows_s"] for run, our in zip(runs, ours, strict=True))
        print(f"{way:10} rows/s: median {statistics.median(rates):6.1f}, best {max(rates):6.1f};", end=" ")
        print(f"of engine's in the same round {share:4.2f}; CPU {cpu:5.2f} ms/row; {runs[0]['tokens']:.0f} tokens")


if __name__ == "__main__":
    main()
