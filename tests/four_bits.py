"""QLoRA on a CPU: an adapter learns over a base of 4 bits, and is then held over the base as it is stored.

Prints the loss of one packed row as JSON: over 4 bits before and after training, and over the stored base.
"""

import json
import random
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from ner_batch.adapter import WEIGHTS
from ner_batch.train import loop, packing
from ner_batch.train import model as models
from ner_batch.train.packing import Sample
from ner_batch.train.settings import BaseModelConfig, LoraSettings

STEPS = 30


def main(base: str) -> None:
    """Train over 4 bits, and load the adapter without them."""
    device = torch.device("cpu")
    samples = [Sample((5 + i, 20, 30), (100 + i, 101 + i)) for i in range(4)]
    (row,) = packing.pack(samples, "shared", 100, random.Random(0))
    model = models.load(BaseModelConfig(model=base, quantization="4bit"), LoraSettings(r=8), device, seed=0)
    assert model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight.dtype == torch.uint8
    optimiser = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    losses = []
    for _ in range(STEPS):
        losses.append(loop.backward(model, [row], mixed=False))
        optimiser.step()
        optimiser.zero_grad()
    with tempfile.TemporaryDirectory() as folder:
        save_file(models.weights(model), Path(folder) / WEIGHTS)
        stored = models.load(BaseModelConfig(model=base), LoraSettings(r=8, init=folder), device, seed=0)
    print(json.dumps([losses[0], losses[-1], loop.backward(stored, [row], mixed=False)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
