"""The adapter directory: what loads, what is refused, and what contradicts what."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from s3_server import BUCKET, point_at, s3_server
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from ner_batch import adapter
from ner_batch.task import Label, Task

TASK = Task(name="news", labels={"ORG": Label(definition="an organisation"), "PER": Label()})
MANIFEST = adapter.AdapterManifest(
    name="news",
    format="json",
    task=TASK,
    prompt_fingerprint="abc",
    base_model="tiny",
    base_fingerprint="123",
    retrieval=("lexical",),
    k=2,
    scores={"dev_f1": 0.75},
    versions={"peft": "0"},
)
SETTING: dict[str, Any] = {
    "base_model": "tiny",
    "base_fingerprint": "123",
    "format": "json",
    "task": TASK,
    "prompt_fingerprint": "abc",
    "retrieval": "lexical",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model (``base``) and a LoRA adapter on it (``adapter``), as transformers and PEFT save them."""
    root = tmp_path_factory.mktemp("trained")
    config = Qwen3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    model.save_pretrained(root / "base")
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(str(root / "adapter"))
    adapter.save_manifest(root / "adapter", MANIFEST)
    return root


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the adapter that a test may spoil."""
    return Path(shutil.copytree(trained / "adapter", tmp_path / "adapter"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def one_line(error: pytest.ExceptionInfo[ValueError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_manifest_survives_the_round_trip(folder: Path) -> None:
    """What PEFT and save_manifest wrote, load gives back; the manifest stays readable by people in any script."""
    loaded = adapter.load(folder)
    assert (loaded.name, loaded.rank, loaded.manifest) == ("news", 4, MANIFEST)
    zh = MANIFEST.model_copy(
        update={"task": Task(name="简历", language="zh", labels={"ORG": Label(definition="组织机构")})}
    )
    adapter.save_manifest(folder, zh)
    assert adapter.load(folder).manifest == zh
    assert "组织机构" in (folder / adapter.MANIFEST).read_text(encoding="utf-8")


def test_adapter_from_elsewhere_has_no_manifest(folder: Path) -> None:
    """Without ner_batch.json an adapter loads under its folder's name and contradicts nothing."""
    (folder / adapter.MANIFEST).unlink()
    loaded = adapter.load(folder)
    assert (loaded.manifest, loaded.name) == (None, "adapter")
    adapter.check(loaded, **{**SETTING, "format": "mrc"})


def test_digest_follows_the_weights(folder: Path) -> None:
    """One changed weight or a changed alpha is another adapter; a new score or another place is not."""
    before = adapter.load(folder).digest
    moved = folder.rename(folder.parent / "moved")
    adapter.save_manifest(moved, MANIFEST.model_copy(update={"scores": {}}))
    assert adapter.load(moved).digest == before
    weights = load_file(moved / adapter.WEIGHTS)
    next(iter(weights.values()))[0, 0] += 1
    save_file(weights, moved / adapter.WEIGHTS)
    changed = adapter.load(moved).digest
    edit(moved / adapter.CONFIG, lora_alpha=99)
    assert len({before, changed, adapter.load(moved).digest}) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"r": 0}, "r is 0"),
        ({"trainable_token_indices": {"embed_tokens": [5]}}, "trainable_token_indices"),
        ({"lora_bias": True}, "lora_bias"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"use_qalora": True}, "use_qalora"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters"),
        ({"a_field_of_next_year": {"on": 1}}, "a_field_of_next_year"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
    ],
)
def test_unservable_adapters_are_refused(folder: Path, changes: dict[str, Any], said: str) -> None:
    """What vLLM cannot serve, or would serve wrongly, is refused in one line that names file and field."""
    edit(folder / adapter.CONFIG, **changes)
    with pytest.raises(ValueError, match=said) as error:
        adapter.load(folder)
    assert adapter.CONFIG in one_line(error)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1956888\n"
Weights = dict[str, torch.Tensor]


def wrapped(weights: Weights) -> Weights:
    return {name.replace("model.model.", "model.model.language_model."): tensor for name, tensor in weights.items()}


def deeper(weights: Weights) -> Weights:
    more = {name.replace("layers.0.", "layers.40."): t.clone() for name, t in weights.items() if "layers.0." in name}
    return weights | more


def wider(weights: Weights) -> Weights:
    return {
        name: torch.zeros((t.shape[0], 2 * t.shape[1]) if "lora_A" in name else (2 * t.shape[0], t.shape[1]))
        for name, t in weights.items()
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda w: w | {"base_model.model.model.embed_tokens.weight": torch.zeros(64, 32)},
            "holds base_model.*embed_tok",
        ),
        (lambda w: w | {"base_model.model.lm_head.modules_to_save.weight": torch.zeros(64, 32)}, "modules_to_save"),
        (lambda w: {n.replace("B.weight", "B.bias"): t for n, t in w.items()}, "lora_B.bias"),
        (lambda w: {n.replace(".weight", ".default.weight"): t for n, t in w.items()}, "default.weight"),
        (lambda w: {n.removeprefix("base_model.model."): t for n, t in w.items()}, "holds model.layers"),
        (lambda w: {n: t for n, t in w.items() if "layers.1" not in n or "lora_A" in n}, "without its partner"),
        (lambda w: {n: t.repeat(*((2, 1) if "lora_A" in n else (1, 2))) for n, t in w.items()}, "is of rank 8"),
        (lambda _: {}, "holds no weights"),
    ],
)
def test_weights_that_are_no_plain_lora(folder: Path, change: Any, said: str) -> None:
    """The header of the file is read, and whatever is not A or B of a linear map is named."""
    save_file(
        {n: t.contiguous() for n, t in change(load_file(folder / adapter.WEIGHTS)).items()}, folder / adapter.WEIGHTS
    )
    with pytest.raises(ValueError, match=said) as error:
        adapter.load(folder)
    assert adapter.WEIGHTS in one_line(error)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda _: LFS, "a pointer of Git LFS"),
        (lambda whole: whole[: len(whole) // 2], "cut off: "),
        (lambda whole: whole[:-1], "cut off: "),
        (lambda whole: whole[:20], "not safetensors, or cut off"),
        (lambda _: b"", "not safetensors, or cut off"),
        (lambda _: b"<html>404 not found</html>", "not safetensors, or cut off"),
        (lambda whole: (9).to_bytes(8, "little") + b"not json!" + whole, "not safetensors: its header"),
        (lambda whole: (4).to_bytes(8, "little") + b"[12]" + whole, "not safetensors: its header"),
    ],
)
def test_files_that_are_no_weights(trained: Path, folder: Path, tmp_path: Path, content: Any, said: str) -> None:
    """An LFS pointer, half a download, something else: of an adapter and of a base."""
    place = folder / adapter.WEIGHTS
    place.write_bytes(content(place.read_bytes()))
    with pytest.raises(ValueError, match=said) as error:
        adapter.load(folder)
    assert adapter.WEIGHTS in one_line(error)
    base = shutil.copytree(trained / "base", tmp_path / "base")
    weights = base / "model.safetensors"
    weights.write_bytes(content(weights.read_bytes()))
    with pytest.raises(ValueError, match=said):
        adapter.check_base(str(base))


@pytest.mark.parametrize("changes", [{"hidden_size": 64}, {"num_hidden_layers": 3}, {"intermediate_size": 32}])
def test_a_config_of_another_model(trained: Path, tmp_path: Path, changes: dict[str, int]) -> None:
    """vLLM would cut the weights to what the config says, and answer."""
    base = shutil.copytree(trained / "base", tmp_path / "base")
    adapter.check_base(str(base))
    edit(base / "config.json", **changes)
    ((name, value),) = changes.items()
    with pytest.raises(ValueError, match=f"config.json has {name}={value}, .*: files of two models") as error:
        adapter.check_base(str(base))
    one_line(error)


def test_a_base_in_parts_must_have_all_of_them(trained: Path, tmp_path: Path) -> None:
    """The index names them; leftovers that it does not name do not matter."""
    base = shutil.copytree(trained / "base", tmp_path / "base")
    (base / "model.safetensors").rename(base / "model-00001-of-00002.safetensors")
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match=r"model-00002-of-00002.safetensors of 2 weight files are missing"):
        adapter.check_base(str(base))
    (base / "model-00002-of-00002.safetensors").write_bytes((base / "model-00001-of-00002.safetensors").read_bytes())
    (base / "other.safetensors").write_bytes(LFS)
    adapter.check_base(str(base))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (wrapped, "changes language_model.model.layers.0.*, which the base does not have"),
        (deeper, "changes model.layers.40.self_attn.q_proj, which the base does not have"),
        (wider, "maps 64 to 64 numbers at model.layers.0.self_attn.q_proj, where the base maps 32 to 32"),
    ],
)
def test_weights_of_another_model(trained: Path, folder: Path, change: Any, said: str) -> None:
    """vLLM passes over modules that it does not know: the bare base would answer in the adapter's name."""
    adapter.check_weights(adapter.load(folder), str(trained / "base"))
    save_file(change(load_file(folder / adapter.WEIGHTS)), folder / adapter.WEIGHTS)
    with pytest.raises(ValueError, match=said) as error:
        adapter.check_weights(adapter.load(folder), str(trained / "base"))
    one_line(error)
    adapter.check_weights(adapter.load(folder), "some/hub-name")


def test_a_base_in_the_hubs_cache(trained: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up where downloads lie; where part of it is still to come nothing is known."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--some--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots").mkdir()
    snapshot = repository / "snapshots" / "abc"
    shutil.copytree(trained / "base", snapshot)
    adapter.check_base("some/name")
    adapter.check_weights(adapter.load(folder), "some/name")
    save_file(deeper(load_file(folder / adapter.WEIGHTS)), folder / adapter.WEIGHTS)
    with pytest.raises(ValueError, match=r"changes model\.layers\.40.*base model some/name") as error:
        adapter.check_weights(adapter.load(folder), "some/name")
    one_line(error)
    adapter.check_weights(adapter.load(folder), "some/name", revision="other")
    (snapshot / "model.safetensors").rename(snapshot / "model-00001-of-00002.safetensors")  # its index comes later
    adapter.check_weights(adapter.load(folder), "some/name")
    (snapshot / "model-00001-of-00002.safetensors").rename(snapshot / "model.safetensors")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    adapter.check_weights(adapter.load(folder), "some/name")
    adapter.check_base("some/name")


def test_pickled_weights_are_refused(folder: Path) -> None:
    """They may run any code where they are loaded."""
    (folder / adapter.WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(ValueError, match="pickles are not read"):
        adapter.load(folder)


def test_a_base_of_pickles_is_refused(tmp_path: Path) -> None:
    """As an adapter is; beside safetensors a pickle is passed over, and other files of the name are none of ours."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "training_args.bin").write_bytes(b"x")
    adapter.check_base(str(tmp_path))
    (tmp_path / "pytorch_model-00001-of-00002.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"pytorch_model-00001-of-00002.bin: a pickle, which can run code"):
        adapter.check_base(str(tmp_path))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    adapter.check_base(str(tmp_path))


@pytest.mark.parametrize("name", [adapter.CONFIG, adapter.WEIGHTS])
def test_missing_files_are_named(folder: Path, name: str) -> None:
    """An adapter without PEFT's config or weights is one line that names the file."""
    (folder / name).unlink()
    with pytest.raises(ValueError, match=name) as error:
        adapter.load(folder)
    one_line(error)


def test_missing_directory_is_one_line(tmp_path: Path) -> None:
    """A wrong path is named."""
    with pytest.raises(ValueError, match="no such adapter directory") as error:
        adapter.load(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in one_line(error)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "x"}', "\ud83d".encode("utf-8", "surrogatepass")])
def test_broken_manifest_is_one_line(folder: Path, content: str | bytes) -> None:
    """A torn, empty, incomplete or undecodable manifest is one line that names the file, never a traceback."""
    (folder / adapter.MANIFEST).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=adapter.MANIFEST) as error:
        adapter.load(folder)
    one_line(error)


def test_unknown_manifest_field_is_explained(folder: Path) -> None:
    """A misspelt field is named, with the right spelling."""
    edit(folder / adapter.MANIFEST, formt="json")
    with pytest.raises(ValueError, match=r"formt.*format") as error:
        adapter.load(folder)
    one_line(error)


def test_agreement_passes(folder: Path) -> None:
    """The run it was trained for is accepted, under whatever path the base model lies today."""
    adapter.check(adapter.load(folder), **{**SETTING, "base_model": "/elsewhere/tiny"})


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"base_model": "other", "base_fingerprint": "456"}, ("tiny (123)", "other (456)")),
        ({"format": "inline"}, ("json", "inline")),
        ({"task": Task(name="bio", labels={"GENE": Label()})}, ("'news' [ORG, PER]", "'bio' [GENE]")),
        ({"prompt_fingerprint": "xyz"}, ("abc", "xyz")),
        ({"retrieval": None}, ("lexical", "none")),
    ],
)
def test_each_contradiction_names_both_values(folder: Path, change: dict[str, Any], values: tuple[str, str]) -> None:
    """Base, format, task, prompt and retrieval: each alone is an error with what was trained and what is asked."""
    with pytest.raises(ValueError, match="trained with") as error:
        adapter.check(adapter.load(folder), **{**SETTING, **change})
    assert all(value in one_line(error) for value in values)


def test_all_contradictions_come_at_once(folder: Path) -> None:
    """Every cause is a line that names the adapter (the prompt that follows from them is not); a definition alone counts."""
    other = Task(name="news", labels={"ORG": Label(definition="a company"), "PER": Label()})
    setting = {
        "base_fingerprint": "4",
        "format": "mrc",
        "task": other,
        "prompt_fingerprint": "x",
        "retrieval": "random",
    }
    with pytest.raises(ValueError, match="trained with") as error:
        adapter.check(adapter.load(folder), **{**SETTING, **setting})
    lines = str(error.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["base model", "format", "task", "demonstrations"]
    assert all(line.startswith(str(folder)) for line in lines)


def test_model_fingerprint_follows_the_content(trained: Path, tmp_path: Path) -> None:
    """A copy elsewhere is the same model; one changed layer in the middle, or another chat template, is another."""
    copy = Path(shutil.copytree(trained / "base", tmp_path / "copy"))
    prints = [adapter.model_fingerprint(str(trained / "base")), adapter.model_fingerprint(str(copy))]
    assert prints[0] == prints[1]
    weights = load_file(copy / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"] += 1
    save_file(weights, copy / "model.safetensors")
    prints.append(adapter.model_fingerprint(str(copy)))
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    prints.append(adapter.model_fingerprint(str(copy)))
    assert len(set(prints)) == 3


def test_model_fingerprint_samples_large_files(tmp_path: Path) -> None:
    """A matrix changed in the middle of a large file is seen, though the file is not read whole."""
    (tmp_path / "config.json").write_text("{}")
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(2 << 30)  # sparse: takes no disk
    before = adapter.model_fingerprint(str(tmp_path))
    with (tmp_path / "model.safetensors").open("rb+") as file:
        file.seek(1 << 30)
        file.write(b"\1" * (40 << 20))
    assert adapter.model_fingerprint(str(tmp_path)) != before


def test_model_fingerprint_of_a_hub_name() -> None:
    """A hub model is its name and revision."""
    assert adapter.model_fingerprint("org/model") == "org/model@main"
    assert adapter.model_fingerprint("org/model", "1a2b") == "org/model@1a2b"


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_model_fingerprint_of_no_model(tmp_path: Path, path: str) -> None:
    """A path that does not exist, or holds no model, is one line that names it."""
    with pytest.raises(ValueError, match="model folder") as error:
        adapter.model_fingerprint(str(tmp_path / path))
    assert str(tmp_path) in one_line(error)


def test_an_adapter_in_s3_is_the_same_adapter(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, rank, digest and manifest; the copy is made once; what is missing or broken is named by its URI."""
    with s3_server() as (endpoint, client):
        point_at(monkeypatch, endpoint)
        for file in (trained / "adapter").iterdir():
            client.upload_file(str(file), BUCKET, f"adapters/news/{file.name}")
            if file.name != adapter.MANIFEST:
                client.upload_file(str(file), BUCKET, f"adapters/bad/{file.name}")
        client.put_object(Bucket=BUCKET, Key=f"adapters/bad/{adapter.MANIFEST}", Body=b"{")
        here, there = adapter.load(trained / "adapter"), adapter.load(f"s3://{BUCKET}/adapters/news")
        assert (there.name, there.rank, there.digest, there.manifest) == (
            here.name,
            here.rank,
            here.digest,
            here.manifest,
        )
        assert adapter.load(f"s3://{BUCKET}/adapters/news").path == there.path
        for name, words in (("nowhere", "no such adapter"), ("bad", adapter.MANIFEST)):
            with pytest.raises(ValueError, match=words) as error:
                adapter.load(f"s3://{BUCKET}/adapters/{name}")
            assert f"s3://{BUCKET}/adapters/{name}" in str(error.value)
