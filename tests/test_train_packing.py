"""Packing: every token once, nothing split that must not be, and the loss of a packed sample is that of the sample alone."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import (
    AutoConfig,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from ner_batch.train import attention, packing
from ner_batch.train.packing import IGNORED, Sample

TOKENS = st.integers(5, 300)
SAMPLES = st.builds(
    lambda start, tails: [Sample((*start, *prompt), tuple(answer)) for prompt, answer in tails],
    st.lists(TOKENS, max_size=12),
    st.lists(
        st.tuples(st.lists(TOKENS, min_size=1, max_size=20), st.lists(TOKENS, min_size=1, max_size=10)),
        min_size=1,
        max_size=25,
    ),
)


def segments_of(pack):
    """A row's segments as (ids, positions, labels), each behind the row's prefix."""
    prefix, at = pack.prefix, pack.prefix
    for length in pack.lengths:
        where = [*range(prefix), *range(at, at + length)]
        yield tuple(tuple(x[i] for i in where) for x in (pack.ids, pack.positions, pack.labels))
        at += length


@given(SAMPLES, st.sampled_from(["none", "greedy", "shared"]), st.integers(1, 60))
def test_every_sample_is_there_once_and_whole(samples, kind, tokens):
    """The segments are the samples: ids, positions from 0, labels on the answer only; padding is counted."""
    packs = packing.pack(samples, kind, tokens, random.Random(0))
    found = [segment for pack in packs for segment in segments_of(pack)]
    assert sum(len(ids) for ids, _, _ in found) - sum(map(len, samples)) == sum(p.padding for p in packs)
    cut = []
    for ids, positions, labels in found:
        end = max(i for i, label in enumerate(labels) if label != IGNORED) + 1
        assert positions == tuple(range(len(ids)))
        cut.append((ids[:end], labels[:end]))
    assert sorted(cut) == sorted((s.ids, s.labels) for s in samples)


@given(SAMPLES, st.integers(30, 80))
def test_rows_keep_to_their_size(samples, tokens):
    """No row is longer than asked, unless one sample alone is."""
    for kind in ("none", "greedy", "shared"):
        for pack in packing.pack(samples, kind, tokens, random.Random(0)):
            assert len(pack.ids) <= tokens or len(pack.lengths) == 1


@given(SAMPLES, st.integers(5, 60))
def test_random_packing_cuts_and_loses_no_token(samples, tokens):
    """All rows but the last are full, every token is there once, and nothing is predicted across an edge."""
    packs = packing.pack(samples, "random", tokens, random.Random(0))
    assert all(len(pack.ids) == tokens for pack in packs[:-1])
    assert sorted(i for pack in packs for i in pack.ids) == sorted(i for sample in samples for i in sample.ids)
    for pack in packs:
        starts = [sum(pack.lengths[:n]) for n in range(len(pack.lengths))]
        assert sum(pack.lengths) == len(pack.ids)
        assert all(pack.labels[start] == IGNORED for start in starts)


@given(SAMPLES)
def test_best_fit_needs_few_rows(samples):
    """Greedy packing fills rows: any two of them together hold more than one row's worth."""
    packs = packing.pack(samples, "greedy", 60, random.Random(0))
    sizes = sorted(len(pack.ids) for pack in packs)
    assert len(sizes) < 2 or sizes[0] + sizes[1] > 60


@given(SAMPLES)
def test_a_shared_prefix_saves_its_repetitions(samples):
    """Never more tokens than greedy packing, and every branch keeps a token of its own prompt."""
    shared, greedy = (packing.pack(samples, kind, 80, random.Random(0)) for kind in ("shared", "greedy"))
    assert sum(len(p.ids) for p in shared) <= sum(len(p.ids) for p in greedy)
    assert all(pack.labels[pack.prefix] == IGNORED for pack in shared)


def test_fill_ratio_counts_padding_as_empty():
    """Two samples of 4 and 2 tokens, padded to 8 of 8."""
    packs = packing.none([Sample((1, 2, 3), (4,)), Sample((1,), (2,))], 8)
    assert packing.fill_ratio(packs, 8) == 0.75


def test_unmasked_rows_are_one_segment():
    """The paper's variant: positions run on, one segment, the labels as they were."""
    (pack,) = packing.pack([Sample((1, 2), (3,)), Sample((4,), (5,))], "greedy", 10, random.Random(0))
    plain = packing.unmasked(pack)
    assert plain.positions == (0, 1, 2, 3, 4)
    assert plain.lengths == (5,)
    assert plain.labels == pack.labels


SMALL = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
MODELS = [
    (Qwen3Config, Qwen3ForCausalLM),
    (LlamaConfig, LlamaForCausalLM),
    (Phi3Config, Phi3ForCausalLM),
    (Gemma3TextConfig, Gemma3ForCausalLM),
]


@pytest.fixture(params=["by segment", "at once"])
def form(request, monkeypatch):
    """Attention as a CPU computes it, and, on this CPU, as a GPU does."""
    if request.param == "at once":

        def at_once(pack, device):
            return attention.Segments(pack.prefix, pack.lengths, attention.score_bias(pack, device))

        monkeypatch.setattr(attention, "segments_of", at_once)
    return request.param


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize(("config", "kind"), MODELS, ids=lambda x: getattr(x, "__name__", ""))
def test_packed_loss_is_the_loss_alone(config, kind):
    """Per sample, to 1e-5 in float32, for every packing and several architectures; a sample's gradient too."""
    torch.manual_seed(0)
    model = kind(config(**SMALL)).eval()
    rng = random.Random(0)
    start = [rng.randrange(5, 300) for _ in range(9)]
    samples = [
        Sample(
            (*start, *(rng.randrange(5, 300) for _ in range(rng.randint(1, 9)))),
            tuple(rng.randrange(5, 300) for _ in range(rng.randint(1, 6))),
        )
        for _ in range(7)
    ]
    alone = []
    for sample in samples:
        logits = model(torch.tensor([sample.ids])).logits[0, len(sample.prompt) - 1 : -1]
        alone.append(torch.nn.functional.cross_entropy(logits, torch.tensor(sample.answer), reduction="sum"))
    sum(alone).backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.set_attn_implementation(attention.NAME)
    for name in ("none", "greedy", "shared"):
        model.zero_grad()
        total = sum(attention.answer_loss(model, pack) for pack in packing.pack(samples, name, 60, random.Random(1)))
        assert torch.allclose(total, sum(alone), rtol=1e-5)
        total.backward()
        for weight, parameter in model.named_parameters():
            if weight in wanted:
                assert torch.allclose(parameter.grad, wanted[weight], atol=2e-4, rtol=1e-3), (name, weight)
    for sample, loss in zip(samples, alone, strict=True):
        row = packing.joined([sample, samples[0]], len(start))
        only = packing.Pack(
            row.ids,
            row.labels[: len(sample)] + (IGNORED,) * (len(row.ids) - len(sample)),
            row.prefix,
            row.lengths,
        )
        assert torch.allclose(attention.answer_loss(model, only), loss, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_bias_of_a_row_is_copied_for_no_head(dtype, mixed, monkeypatch):
    """Its rows begin at 16 bytes, heads share it, and autocast has nothing to bring to another type."""
    seen = []

    def noted(query, key, value, attn_mask, **options):
        seen.append((query.dtype, key.dtype, value.dtype, attn_mask.dtype, attn_mask.stride()))
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, **options)

    monkeypatch.setattr(attention, "_sdpa", noted)
    pack = packing.joined([Sample((5, 6, 7), (8, 9)), Sample((5, 6), (7, 8, 9, 10))], 0)
    segments = attention.Segments(pack.prefix, pack.lengths, attention.score_bias(pack, torch.device("cpu")))
    count = len(pack.ids)
    query, key, value = torch.ones(1, 4, count, 8), torch.ones(1, 2, count, 8), torch.ones(1, 2, count, 8, dtype=dtype)
    if not mixed:
        query, key = query.to(dtype), key.to(dtype)
    attention.attend(torch.nn.Identity(), query, key, value, None, segments=segments)
    ((*types, (over_batch, over_heads, over_rows, _)),) = seen
    assert set(types) == {dtype}
    assert over_heads == 0
    assert over_batch % 8 == over_rows % 8 == 0


ATTENTION = [
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "llama",
    "mistral",
    "phi3",
    "gemma3_text",
    "granite",
    "olmo2",
    "glm4",
    "smollm3",
]
OTHERS = ["qwen3_next", "bloom", "mpt", "falcon", "gpt_oss", "minimax"]


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("name", ATTENTION)
def test_decoders_with_attention_of_transformers_may_be_packed(name):
    """A row's loss is that of its samples."""
    attention.check_packing(AutoConfig.for_model(name))


@pytest.mark.parametrize("name", OTHERS)
def test_architectures_that_see_across_samples_are_refused(name):
    """Recurrent, convolutional and linear-attention layers, attention sinks, and attention of their own."""
    with pytest.raises(ValueError, match=r"samples of a row are not|its attention is not"):
        attention.check_packing(AutoConfig.for_model(name))


def test_convolutions_see_across_samples():
    """One layer of them among others is enough."""
    with pytest.raises(ValueError, match="samples of a row are not"):
        attention.check_packing(
            AutoConfig.for_model("lfm2", num_hidden_layers=16, layer_types=["conv", "full_attention"] * 8)
        )


def test_unmasked_samples_do_see_each_other():
    """Without the mask the same row has another loss: the difference the mask makes is real."""
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**SMALL)).eval()
    model.set_attn_implementation(attention.NAME)
    (row,) = packing.pack([Sample((7, 8, 9), (10, 11)), Sample((12, 13), (14,))], "greedy", 20, random.Random(0))
    masked, plain = (float(attention.answer_loss(model, x)) for x in (row, packing.unmasked(row)))
    assert abs(masked - plain) > 1e-3


@settings(max_examples=20)
@given(st.integers(1, 400), st.randoms(use_true_random=False))
def test_thousands_of_samples_pack_fast_and_whole(count, rng):
    """Best fit keeps its books straight for many samples of any length."""
    samples = [Sample((1,) * rng.randint(1, 50), (2,) * rng.randint(1, 20)) for _ in range(count)]
    packs = packing.pack(samples, "greedy", 100, random.Random(0))
    assert sum(len(pack.ids) for pack in packs) == sum(map(len, samples))
    assert all(len(pack.ids) <= 100 for pack in packs)
