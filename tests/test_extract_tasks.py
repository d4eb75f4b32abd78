"""Several tasks, each with its own adapter, over one corpus in one pass: what each finds alone, tagged by its name."""

import psutil
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import yaml
from processes import parquet_files, wait_until
from test_extract_job import check_spans, config, extract_here, sentences, start, table  # noqa: F401  (fixtures among them)
from tiny import FILES

from ner_batch import adapter as adapters
from ner_batch.data import PREDICTIONS, predictions_schema
from ner_batch.engine.settings import EngineConfig
from ner_batch.extraction.predictor import Predictor
from ner_batch.extraction.recipe import Recipe, TaskRecipe
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import load_tokenizer
from ner_batch.prompts.formats import get
from ner_batch.task import Task, load_task

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]
ROLES = Task(name="roles", labels={"WHO": {"definition": "who is meant"}, "SPOT": {"definition": "where it is"}})


def read(recipe, texts):
    """The predictions of one predictor."""
    predictor = Predictor(recipe)
    try:
        return predictor.predict(texts)
    finally:
        predictor.close()


@pytest.fixture
def trained(tiny_model, random_adapter):
    """A second adapter for the tiny model (its weights are random), with the manifest of the task `roles`."""
    path = random_adapter(tiny_model, 3)
    builder = PromptBuilder(get("inline"), ROLES, load_tokenizer(tiny_model), 1024)
    manifest = adapters.AdapterManifest(
        name="roles",
        format="inline",
        task=ROLES,
        prompt_fingerprint=builder.fingerprint(),
        base_model=tiny_model,
        base_fingerprint=adapters.model_fingerprint(tiny_model),
    )
    adapters.save_manifest(path, manifest)
    return path


def test_every_task_finds_what_it_finds_alone(tiny_model, trained, sentences):  # noqa: F811
    """Adapters, formats, label groups and no adapter at all, side by side in one engine, do not touch each other."""
    engine = EngineConfig(
        model=tiny_model,
        dtype="float32",
        max_model_len=1024,
        enforce_eager=True,
        cpu_kv_cache_gib=1,
        max_lora_rank=32,
        max_loras=2,
    )
    demo = TaskRecipe(load_task(str(FILES / "task.yaml")), "json", adapter=str(FILES / "adapter"))
    roles = TaskRecipe(ROLES, "inline", adapter=trained, decoding="constrained")
    plain = TaskRecipe(Task(name="plain", labels={"NAME": {}}), "mrc", decoding="constrained")
    texts = [None, *sentences[:30]]
    together = read(Recipe(engine, 128, (demo, roles, plain)), texts)
    for task in (demo, roles, plain):
        alone = read(Recipe(engine, 128, (task,)), texts)
        for one, all_ in zip(alone, together, strict=True):
            name = task.task.name
            assert [(e.start, e.end, e.type) for e in one.entities] == [
                (e.start, e.end, e.type) for e in all_.entities if e.task == name
            ]
            assert {(u.text, u.type) for u in one.ungrounded} == {
                (u.text, u.type) for u in all_.ungrounded if u.task == name
            }
    assert {e.task for p in together for e in p.entities} >= {"demo", "roles"}


@pytest.mark.ray
@pytest.mark.usefixtures("in_cluster")
def test_two_adapters_through_the_command_line(config, tmp_path, sentences, trained):  # noqa: F811
    """The output's schema has the task beside every entity, in files without a single entity too; sums come out even.

    vLLM's core is in a process of its own in the replica, as on every GPU, with adapters and a grammar; kill -9 of it in
    the middle costs an engine death and no row.
    """
    values = yaml.safe_load(config.read_text())
    del values["adapter"]
    values["engine"]["in_process"] = False
    values["job"]["unit_rows"] = 10
    values["tasks"] = [{"adapter": str(FILES / "adapter")}, {"adapter": trained, "decoding": "constrained"}]
    config.write_text(yaml.safe_dump(values))
    pq.write_table(table([None] * 3, "none"), tmp_path / "corpus" / "a.parquet")
    # Units enough that some are still to come when the first is written: of four the engine had once read all by then.
    pq.write_table(table(sentences[:40] * 2, "some"), tmp_path / "corpus" / "b.parquet")
    process = start(config)
    wait_until(lambda: len(parquet_files(tmp_path / "out")) >= 2, process, seconds=240)  # one has no text to read
    below = psutil.Process().children(recursive=True)
    (core,) = [child for child in below if "VLLM::EngineCor" in " ".join(child.cmdline())]
    core.kill()
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert "rows in 83 = rows out 83 = " in output
    found = pads.dataset(tmp_path / "out", format="parquet")
    added = found.schema.names[-len(PREDICTIONS) :]
    assert [found.schema.field(n).type for n in added] == list(predictions_schema(tagged=True).types)
    rows = found.to_table().to_pylist()
    check_spans(rows)
    assert {e["task"] for row in rows for e in row["entities"]} == {"demo", "roles"}
    assert {e["type"] for row in rows for e in row["entities"] if e["task"] == "roles"} <= {"WHO", "SPOT"}
    again, told = extract_here(config)
    assert again == 0, told
    values["tasks"][1]["decoding"] = "auto"
    config.write_text(yaml.safe_dump(values))
    code, output = extract_here(config)
    assert code == 2
    assert "roles: decoding was constrained, is auto" in output
