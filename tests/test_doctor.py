"""`ner-batch doctor`: the arithmetic against what models really hold, and what it says of a config that is right or wrong."""

import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from tiny import FILES
from transformers import AutoModelForCausalLM, DeepseekV3Config, FalconConfig, Qwen3Config, Qwen3MoeConfig

from ner_batch import config as configs
from ner_batch.engine.device import cpu_computes_bfloat16
from ner_batch.engine.memory import GIB, memory_needs
from ner_batch.engine.settings import EngineConfig
from ner_batch.errors import UserError
from ner_batch.extraction.doctor import doctor
from ner_batch.extraction.settings import ExtractConfig


def test_the_arithmetic_is_what_a_model_really_holds(random_model):
    """Weights, cache and adapters of a model that is loaded, counted in its tensors."""
    from peft import LoraConfig, get_peft_model

    needs = memory_needs(EngineConfig(model=random_model, dtype="bfloat16", max_lora_rank=8, max_loras=2))
    model = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.bfloat16)
    assert needs.parameters == sum(p.numel() for p in model.parameters())
    assert needs.weights == sum(p.numel() * p.element_size() for p in model.parameters())
    with torch.no_grad():
        cache = model(torch.arange(7)[None], use_cache=True).past_key_values
    held = sum(part.numel() * part.element_size() for layer in cache.layers for part in (layer.keys, layer.values))
    assert needs.kv_per_token * 7 == held
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))
    lora = sum(p.numel() * 2 for name, p in adapted.named_parameters() if "lora_" in name)
    assert needs.adapters == 2 * lora
    on_cpu = memory_needs(EngineConfig(model=random_model), on_gpu=False)
    assert on_cpu.weights == (1 if cpu_computes_bfloat16() else 2) * needs.weights
    wide = memory_needs(EngineConfig(model=random_model, dtype="float32"))
    assert (wide.weights, wide.kv_per_token) == (2 * needs.weights, 2 * needs.kv_per_token)
    halved = memory_needs(EngineConfig(model=random_model, dtype="bfloat16", tensor_parallel_size=2))
    assert halved.kv_per_token == needs.kv_per_token / 2


ROOT = Path(__file__).parent.parent


def qwen3(hidden, layers, heads, inner, *, tied):
    """The config of a Qwen3."""
    return Qwen3Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        tie_word_embeddings=tied,
        head_dim=128,
        num_key_value_heads=8,
        vocab_size=151_936,
    )


SIZES = {
    "0.6B": qwen3(1024, 28, 16, 3072, tied=True),
    "4B": qwen3(2560, 36, 32, 9728, tied=True),
    "8B": qwen3(4096, 36, 32, 12288, tied=False),
}


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """Folders with the config of Qwen3 in three sizes, and no weights."""
    folder = tmp_path_factory.mktemp("qwen3")
    for name, config in SIZES.items():
        config.save_pretrained(folder / name)
    return folder


def profiles():
    """The rows of the recipe's table for a 4090: size, quantization, max_num_seqs, max_model_len and tokens of cache."""
    text = (ROOT / "docs" / "recipe-4090.md").read_text()
    table = re.findall(
        r"^\| Qwen3 (\S+) B.*? \| `Qwen/(\S+)` \|.*? \| (\d+) \| (\d+) \|.*\| ([\d,]+) \|$", text, re.MULTILINE
    )
    assert len(table) == 4
    return [
        (f"{size}B", next((kind for kind in ("fp8", "awq") if name.lower().endswith(kind)), "none"), *numbers)
        for size, name, *numbers in table
    ]


@pytest.mark.parametrize("row", profiles(), ids=" ".join)
def test_the_recipes_models_fit_a_4090(sizes, row):
    """Each leaves room for eight prompts of full length at least, and for as many tokens as the table says."""
    size, quantization, seqs, length, tokens = row
    engine = EngineConfig(
        model=str(sizes / size),
        dtype="bfloat16",
        quantization=None if quantization == "none" else quantization,
        max_num_seqs=int(seqs),
        max_model_len=int(length),
        gpu_memory_utilization=0.92,
        max_lora_rank=16,
    )
    needs = memory_needs(engine)
    assert abs(needs.parameters / 1e9 - float(size[:-1])) < 0.2
    fits = needs.kv_tokens(24 * 0.92 * GIB)
    assert round(fits, -3) == int(tokens.replace(",", ""))
    assert fits > 8 * engine.max_model_len


def needs_of(tmp_path, config, **engine):
    """The memory of a model with this config, 16 bits a number, in GiB of weights and KiB of cache a token."""
    config.save_pretrained(tmp_path)
    needs = memory_needs(EngineConfig(model=str(tmp_path), dtype="bfloat16", **engine))
    return needs.weights / GIB, needs.kv_per_token / 1024


def test_other_architectures(tmp_path):
    """Experts are quantized too; heads are shared by no more GPUs than there are; DeepSeek's cache is latent."""
    experts = Qwen3MoeConfig(
        hidden_size=2048,
        num_hidden_layers=48,
        num_attention_heads=32,
        num_key_value_heads=4,
        head_dim=128,
        moe_intermediate_size=768,
        num_experts=128,
        vocab_size=151_936,
        tie_word_embeddings=False,
    )
    assert needs_of(tmp_path / "moe", experts) == pytest.approx((56.9, 96), rel=0.01)
    assert needs_of(tmp_path / "fp8", experts, quantization="fp8") == pytest.approx((29, 96), rel=0.02)
    assert needs_of(tmp_path / "tp", experts, tensor_parallel_size=8)[1] == 24
    latent = DeepseekV3Config(num_hidden_layers=2, first_k_dense_replace=1, n_routed_experts=8, n_group=1, topk_group=1)
    assert needs_of(tmp_path / "mla", latent)[1] == 2 * (512 + 64) * 2 / 1024
    assert needs_of(tmp_path / "falcon", FalconConfig(num_hidden_layers=32))[1] == 32 * 2 * 64 * 2 / 1024


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ({"quant_method": "gptq", "bits": 8}, 8),
        ({"quant_method": "awq", "bits": 4}, 4.5),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 4}}}}, 4.5),
    ],
    ids=str,
)
def test_a_quantized_model_says_how_many_bits(tmp_path, sizes, quantization, bits):
    """In its own config; without a word of it, by the method's name."""
    content = json.loads((sizes / "4B" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"quantization_config": quantization}))
    plain, quantized = (
        memory_needs(EngineConfig(model=str(folder), dtype="bfloat16")) for folder in (sizes / "4B", tmp_path)
    )
    embeddings = 2560 * 151_936 * 2
    ratio = (quantized.weights - embeddings) / (plain.weights - embeddings)
    assert ratio == pytest.approx(bits / 16, rel=0.001)


@pytest.mark.parametrize(
    "change", [{"hidden_size": None}, {"quantization_config": "nobody knows"}, {"model_type": "x"}], ids=str
)
def test_what_cannot_be_computed_is_said(tmp_path, sizes, change):
    """One line; the doctor goes on, for the engine's own start decides."""
    content = json.loads((sizes / "4B" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | change))
    with pytest.raises(UserError, match=r"memory cannot be computed|not known here"):
        memory_needs(EngineConfig(model=str(tmp_path), dtype="bfloat16"))


def test_eight_billion_in_sixteen_bits_do_not_fit(sizes):
    """Fewer prompts than keep the card busy: a problem with its remedy."""
    needs = memory_needs(EngineConfig(model=str(sizes / "8B"), dtype="bfloat16", gpu_memory_utilization=0.92))
    assert needs.kv_tokens(24 * 0.92 * GIB) < 8 * 4096
    with pytest.raises(UserError, match=r"engine\.model /nowhere: its memory cannot be computed"):
        memory_needs(EngineConfig(model="/nowhere"))


def look(tmp_path, *overrides, **options):
    """The doctor's exit code and what it prints of a config on the tiny model."""
    pq.write_table(pa.table({"text": ["Anna met Bob in Berlin."] * 3}), tmp_path / "corpus.parquet")
    values = {
        "input": {"path": str(tmp_path / "corpus.parquet")},
        "output": {"path": str(tmp_path / "out")},
        "engine": {
            "model": str(FILES / "base"),
            "dtype": "float32",
            "max_model_len": 1024,
            "cpu_kv_cache_gib": 1,
            "enforce_eager": True,
        },
        "adapter": str(FILES / "adapter"),
        "windows": {"max_tokens": 128},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(values))
    console = Console(file=io.StringIO(), width=300)
    code = doctor(configs.load(ExtractConfig, tmp_path / "job.yaml", overrides), console, **options)
    return code, console.file.getvalue()


@pytest.mark.engine
def test_all_is_well(tmp_path):
    """A line for everything; the engine starts with its adapter and reads a sentence; nothing is left in the output."""
    code, output = look(tmp_path, gpu_gib=24)
    assert code == 0, output
    for line in (
        r"versions   python 3\.\d+.*, ray \d.*, vllm",
        r"machine    \d+ CPUs, which compute in (bfloat16|float32); \d+ of \d+ GiB memory free",
        r"disk       [\d,]+ GiB free for output \(.*out\)",
        r"ray        no cluster is named",
        r"config     3 rows in 1 files, 1 units; 0 rows done before",
        r"config     task .*, adapter .*, format json",
        r"memory     0\.00 B parameters: .* GiB of weights",
        r"memory     21\.6 GiB \(24 x engine.gpu_memory_utilization 0.9\) hold [\d,]+ tokens of cache",
        r"engine     started in \d+ s; a sentence took \d+\.\d s: ok",
    ):
        assert re.search(rf"^{line}", output, re.MULTILINE), (line, output)
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_said_and_the_rest_is_looked_at(tmp_path):
    """A column that is not there, a card that is too small, a cluster where nobody answers: each on its line, code 2."""
    code, output = look(
        tmp_path,
        "input.text_column=body",
        "job.address=127.0.0.1:9",
        "engine.max_model_len=4096",
        gpu_gib=1,
        start=False,
    )
    assert code == 2, output
    problems = [line for line in output.splitlines() if "problem" in line]
    assert [line.split()[0] for line in problems] == ["ray", "config", "memory"], output
    assert "Ray address 127.0.0.1:9" in problems[0]
    assert "body" in problems[1]
    assert "prompts of engine.max_model_len=4096: lower it" in problems[2]
