"""A structured initialisation that lets a small Qwen3 copy before it has learnt anything else.

Copying takes two attention layers working together (an induction circuit; Olsson et al. 2022, *In-context
Learning and Induction Heads*): the first lets every position know its predecessors, the second attends to where
the present token occurred before and repeats what came next. Small models find this circuit late or never: with
the usual initialisation copy accuracy was below 0.1 after 110 CPU-seconds. Here it is written into the weights,
and training refines it. The result is a plain Qwen3 checkpoint. Untrained it continues a repeated random sequence
of 60 / 300 tokens at 0.97 / 0.87.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

_LOUDNESS = (0.1, 0.06, 0.01, 0.01)  # of the look-back heads; the last two only disturb at first, but learn to help


@dataclass(frozen=True, slots=True)
class Shape:
    """The tiny model's size: some 1.9 M parameters in the layers, 192 more for each token of the vocabulary.

    ``rope_theta`` is 1e5, ten times slower than the usual 1e4, so that matching by content holds over 4,096 positions.
    """

    hidden: int = 192
    layers: int = 4
    heads: int = 4
    head_size: int = 64
    mlp: int = 480
    rope_theta: float = 1e5
    positions: int = 4096

    def config(self, vocabulary: int, end: int, pad: int) -> Qwen3Config:
        """The Qwen3 configuration for a vocabulary size and the ids of the end and padding tokens."""
        return Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.mlp,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            head_dim=self.head_size,
            max_position_embeddings=self.positions,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            tie_word_embeddings=True,
            eos_token_id=end,
            bos_token_id=None,
            pad_token_id=pad,
            use_cache=True,
        )


def initialised(config: Qwen3Config, shape: Shape, seed: int) -> Qwen3ForCausalLM:
    """A float32 model whose first layer looks back 1 to 4 tokens and whose second layer is made of induction heads."""
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config).float()
    with torch.no_grad():
        embeddings = model.model.embed_tokens.weight
        embeddings.normal_(0.0, 0.04)
        embeddings[:, 0] = 6 * 0.04  # the same in every token, so that a head can read a constant from it
        model.model.norm.weight.fill_(5.0)  # tied embeddings this small give flat logits: copy loss 2 instead of 6
        lenses, outlets = _look_back(model.model.layers[0].self_attn, shape)
        _induce(model.model.layers[1].self_attn, shape, lenses, outlets)
        for layer in model.model.layers[2:]:  # sharper than usual: these have to pick one place out of hundreds
            layer.self_attn.q_norm.weight.fill_(1.5)
            layer.self_attn.k_norm.weight.fill_(1.5)
    return model


def _look_back(attention: torch.nn.Module, shape: Shape) -> tuple[list[Tensor], list[Tensor]]:
    """Head h attends to the token h + 1 places back and writes its embedding into a random subspace of its own.

    Query and key read only the constant channel. With frequencies f and weights w the score at distance s is
    sum(w^2 cos((s - d) f)), a peak at s = d. Returns each head's value projection U and output map Q.
    """
    size, half = shape.head_size, shape.head_size // 2
    frequencies = shape.rope_theta ** (-torch.arange(half) / half)
    fast = int((frequencies > 0.1).sum())
    weights = torch.cat([torch.linspace(1.0, 0.3, fast).sqrt(), torch.zeros(half - fast)])
    attention.q_norm.weight.fill_(2.5)
    attention.k_norm.weight.fill_(2.5)
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight.zero_()
    first, second, shared = _orthogonal_maps(3, size, shape.hidden)
    lenses, outlets = [], []
    for head in range(shape.heads):
        rows, turn = slice(head * size, (head + 1) * size), (head + 1) * frequencies
        attention.q_proj.weight[rows, 0] = torch.cat([weights, torch.zeros(half)])
        attention.k_proj.weight[rows, 0] = torch.cat([weights * turn.cos(), weights * turn.sin()])
        lens = shared if head < 2 else _value_map(size, shape.hidden)  # heads 0 and 1 share one: see _induce
        outlet = (first, second)[head].T if head < 2 else _value_map(size, shape.hidden).T
        attention.v_proj.weight[rows] = lens
        attention.o_proj.weight[:, rows] = _LOUDNESS[head] * outlet
        lenses.append(lens)
        outlets.append(outlet)
    return lenses, outlets


def _induce(attention: torch.nn.Module, shape: Shape, lenses: list[Tensor], outlets: list[Tensor]) -> None:
    """Heads that attend to the position after an earlier occurrence of the present token and copy what stands there.

    The query reads the own embedding, the key the predecessor's, through one random lens; with half the weight
    the same one token further back, so that a match of two tokens beats a match of one. Only the slower half of
    the rotary dimensions is used, where position hardly matters.
    """
    size, half = shape.head_size, shape.head_size // 2
    slow = torch.cat([torch.arange(half // 2, half), torch.arange(half + half // 2, size)])
    attention.q_norm.weight.fill_(2.0)
    attention.k_norm.weight.fill_(2.0)
    for head in range(shape.heads):
        rows = slice(head * size, (head + 1) * size)
        one = torch.randn(len(slow), size) / math.sqrt(size)
        two = 0.5 * torch.randn(len(slow), size) / math.sqrt(size)
        query, key = 0.002 * torch.randn(2, size, shape.hidden)
        query[slow] += one @ lenses[0] + two @ outlets[0].T
        key[slow] += one @ outlets[0].T + two @ outlets[1].T
        value = _value_map(size, shape.hidden)
        attention.q_proj.weight[rows] = query
        attention.k_proj.weight[rows] = key
        attention.v_proj.weight[rows] = value
        attention.o_proj.weight[:, rows] = 0.2 * value.T


def _value_map(size: int, hidden: int) -> Tensor:
    """Orthonormal rows that leave out the constant channel 0: (size, hidden)."""
    rows = torch.zeros(size, hidden)
    rows[:, 1:] = _orthonormal(hidden - 1, size).T
    return rows


def _orthogonal_maps(count: int, size: int, hidden: int) -> list[Tensor]:
    """Value maps whose subspaces do not overlap, so that what one writes does not disturb what another reads."""
    maps = list(_orthonormal(hidden, count * size).T.split(size))
    for rows in maps:
        rows[:, 0] = 0.0
    return maps


def _orthonormal(rows: int, columns: int) -> Tensor:
    """A random matrix with orthonormal columns."""
    return torch.linalg.qr(torch.randn(rows, columns))[0]
