"""vLLM on a CPU with an adapter: our LoRA products against its own, answers compared.

python tests/benchmarks/bench_lora_cpu.py MODEL ADAPTER TEXTS.parquet [--rows 200]
"""

import argparse
import json
import os
import subprocess
import sys
import time

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def measure(options: argparse.Namespace) -> dict[str, object]:
    """CPU-seconds and answers of one engine in this process."""
    import pyarrow.parquet as pq

    from ner_batch import adapter
    from ner_batch.engine.engine import Engine, Request, lora_cpu
    from ner_batch.engine.settings import EngineConfig
    from ner_batch.prompts import formats
    from ner_batch.prompts.builder import PromptBuilder
    from ner_batch.prompts.chat import load_tokenizer

    if options.theirs:
        lora_cpu.install = lambda: False
    found = adapter.load(options.adapter)
    assert found.manifest
    task = found.manifest.task
    builder = PromptBuilder(formats.get(found.manifest.format), task, load_tokenizer(options.model), 1024)
    texts = pq.read_table(options.texts, columns=["text"])["text"].to_pylist()[: options.rows]
    prompts = [p for text in texts if (p := builder.build(text, builder.format.groups(task)[0]))]
    requests = [Request(p.token_ids, p.max_tokens, options.adapter) for p in prompts]
    config = {"dtype": "float32", "max_model_len": 1024, "max_num_seqs": 64, "max_lora_rank": found.rank}
    engine = Engine(EngineConfig(model=options.model, enforce_eager=True, cpu_kv_cache_gib=1, **config))
    engine.generate(requests[:8])
    begun = time.process_time()
    completions = engine.generate(requests)
    spent = time.process_time() - begun
    engine.close()
    return {"cpu_seconds": round(spent, 1), "answers": [completion.text for completion in completions]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("adapter")
    parser.add_argument("texts")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--theirs", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(measure(options)))
        return
    results = []
    for flags in ([], ["--theirs"]):
        command = [sys.executable, __file__, *sys.argv[1:], "--once", *flags]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results.append(json.loads(output.splitlines()[-1]))
    ours, theirs = results
    same = sum(a == b for a, b in zip(ours["answers"], theirs["answers"], strict=True))
    print(
        f"ours {ours['cpu_seconds']} CPU-s, vLLM's {theirs['cpu_seconds']} CPU-s; {same} of {len(ours['answers'])} same"
    )


if __name__ == "__main__":
    main()
