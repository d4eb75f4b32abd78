"""Packing compared at equal samples: steps, speed, fill and dev F1 of every kind, masked and not.

    python tests/benchmarks/bench_packing.py jobs/train.yaml [--samples N] [--dev N] [a.b=value ...]

Every variant starts from the same weights and sees the first N samples of the same epochs once, one row a step, on a
GPU where there is one, else on one thread. `padded, random order` is the papers' padding: batches of samples as they come, padded to their longest; `none`
puts samples of similar length side by side. `tokens/s` counts the samples' own tokens, so padding and repeated
instructions are no merit. Seconds on a CPU are CPU seconds: what else the machine does changes them less.
"""

import argparse
import random
import time
from pathlib import Path

import torch

from ner_batch import config as configs
from ner_batch.train import attention, evaluate, loop, packing, plan
from ner_batch.train import model as models
from ner_batch.train.samples import draw_epoch
from ner_batch.train.settings import TrainConfig

PADDED = "padded, random order"
VARIANTS = (
    (PADDED, True),
    ("none", True),
    ("random", True),
    ("random", False),
    ("greedy", True),
    ("greedy", False),
    ("shared", True),
)


def rows_of(work: plan.Plan, wanted: int, kind: str, masked: bool) -> tuple[list[packing.Pack], int]:
    """Rows of the first ``wanted`` samples, and how many tokens these have alone."""
    builder, samples, epoch = work.builder(), [], 0
    while len(samples) < wanted:
        samples += draw_epoch(
            work.train, builder, work.config.demonstrations.shares, work.config.augmentation, f"bench-{epoch}"
        )[0]
        epoch += 1
    samples = samples[:wanted]
    alone, tokens = sum(map(len, samples)), work.config.packing.tokens
    if kind != PADDED:
        return plan.pack_epoch(samples, plan.BatchLayout(kind, masked, tokens, 1), "bench"), alone
    batches: list[list[packing.Sample]] = [[]]
    for sample in random.Random("bench").sample(samples, len(samples)):
        if max(map(len, [*batches[-1], sample])) * (len(batches[-1]) + 1) > tokens and batches[-1]:
            batches.append([])
        batches[-1].append(sample)
    return [packing.none(batch, 1_000_000)[0] for batch in batches], alone


def train(work: plan.Plan, rows: list[packing.Pack], device: torch.device) -> tuple[float, float, int]:
    """Seconds of training, strict dev F1 afterwards, and the most MB of the GPU's memory in use (on a CPU 0)."""
    config, on_gpu = work.config, device.type == "cuda"
    mixed = models.computes_bfloat16(config.base, device)
    model = models.load(config.base, config.lora, device, config.run.seed)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = loop.make_optimiser(weights, config.optimiser)
    scheduler = loop.make_scheduler(optimiser, config.optimiser, len(rows), 0)
    model.train()
    clock = time.monotonic if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    begun = clock()
    for row in rows:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            value = attention.answer_loss(model.get_base_model(), row) / max(1, row.learnt)
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights, config.optimiser.clip)
        optimiser.step()
        scheduler.step()
        optimiser.zero_grad(set_to_none=True)
    if on_gpu:
        torch.cuda.synchronize()
    seconds, peak = clock() - begun, torch.cuda.max_memory_allocated() >> 20 if on_gpu else 0
    builder = work.builder()
    prompts = evaluate.dev_prompts(work.dev.examples, [()] * len(work.dev.examples), builder)
    answers = evaluate.answers_in_training(model, prompts, builder)
    return seconds, evaluate.score_answers(work.dev.examples, prompts, answers, builder).micro.f1, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--dev", type=int, default=100)
    options, overrides = parser.parse_known_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    config = configs.load(TrainConfig, options.config, [*overrides, f"evaluation.examples={options.dev}"])
    work = plan.prepare(config)
    print(
        "| packing | rows = steps | fill | tokens/s of samples | s | dev F1 | GPU MB |\n|---|---:|---:|---:|---:|---:|---:|"
    )
    for kind, masked in VARIANTS:
        rows, alone = rows_of(work, options.samples, kind, masked)
        seconds, f1, peak = train(work, rows, device)
        fill = packing.fill_ratio(rows, config.packing.tokens)
        name = kind if masked else f"{kind}, unmasked"
        speed = alone / seconds
        print(f"| {name} | {len(rows)} | {fill:.0%} | {speed:,.0f} | {seconds:.0f} | {f1:.3f} | {peak:,} |", flush=True)


if __name__ == "__main__":
    main()
