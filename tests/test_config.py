"""Configs: strict, all problems at once, secrets kept out of dumps."""

import pytest

from ner_batch.config import Config, dump, load
from ner_batch.engine import settings as of_engine
from ner_batch.extraction import settings as of_extraction
from ner_batch.extraction.settings import ExtractConfig
from ner_batch.jobs import index
from ner_batch.verification import settings as of_verification

MINIMAL = """
input: {path: in}
output: {path: out}
engine: {model: some/model}
task: task.yaml
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "job.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_minimal_config_loads_with_defaults(file):
    """What is not written has its default; the value is frozen."""
    loaded = load(ExtractConfig, file(MINIMAL))
    assert loaded.job.unit_rows == 2000
    assert loaded.decoding == "auto"
    with pytest.raises(ValueError, match="frozen"):
        loaded.task = "other"


def test_overrides_are_yaml_values_at_any_depth(file):
    """`a.b=c` sets numbers, lists, nulls and sections that the file does not have."""
    overrides = ["job.unit_rows=7", "output.keep=[id, text]", "retrieval.index=null", "windows.max_tokens=64"]
    loaded = load(ExtractConfig, file(MINIMAL), overrides)
    assert (loaded.job.unit_rows, loaded.output.keep, loaded.retrieval.index) == (7, ("id", "text"), None)
    assert loaded.windows.max_tokens == 64


WRITTEN = ["NO", "on", "y", "010", "12:30", "1_000", "1e5", "2.50", "2024-05-01", "True", "0x1F", "=", "+7", ".5"]


def test_what_is_written_for_a_text_is_that_text(file):
    """Names of columns and files that YAML 1.1 would take for booleans, numbers, times or dates; as keys too."""
    overrides = [f"output.keep=[{', '.join(WRITTEN)}]", "task=010"]
    text = MINIMAL.replace(
        "{path: in}", f"{{path: in, rename: {{{', '.join(f'{name}: {name}' for name in WRITTEN)}}}}}"
    )
    loaded = load(ExtractConfig, file(text), overrides)
    assert loaded.output.keep == tuple(WRITTEN)
    assert loaded.input.rename == {name: name for name in WRITTEN}
    assert loaded.task == "010"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1e-4),
        ("010", 10),
        ("-3", -3),
        ("true", True),
        ("on", "on"),
        ("12:30", "12:30"),
        ("'7'", "7"),
        ('"true"', "true"),
        ("~", None),
        ("[1, {x: 2.5, 3: no}]", [1, {"x": 2.5, "3": "no"}]),
        ("auto", "auto"),
        (".5", 0.5),
    ],
)
def test_fields_of_any_type_follow_yaml_1_2(file, written, value):
    """What vLLM is handed as it is; quotes make a text of it."""
    got = load(ExtractConfig, file(MINIMAL), [f"engine.extra.a={written}"]).engine.extra["a"]
    assert (got, type(got)) == (value, type(value))


def test_an_override_has_no_comments(file):
    """A shell hands over what was meant; `run #2` is a name."""
    overrides = ["output.path=/data/run #2", "task='a #b'", "output.keep=[id] # all we need"]
    loaded = load(ExtractConfig, file(MINIMAL), overrides)
    assert (loaded.output.path, loaded.task, loaded.output.keep) == ("/data/run #2", "a #b", ("id",))


def test_numbers_and_switches_may_be_written_as_people_do(file):
    """The field's type decides, so 1e-3 and 1_000 are numbers, and yes is true, where one is asked for."""
    overrides = ["job.unit_rows=1_000", "job.max_failed=1e-3", "engine.enforce_eager=yes", "engine.in_process=off"]
    loaded = load(ExtractConfig, file(MINIMAL), overrides)
    assert (loaded.job.unit_rows, loaded.job.max_failed) == (1000, 0.001)
    assert (loaded.engine.enforce_eager, loaded.engine.in_process) == (True, False)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("engine: {model: other}\n", "'engine' is given twice line 6, column 1"),
        ("job: {replicas: 2, unit_rows: 3, replicas: 4}\n", "'replicas' is given twice line 6, column 34"),
    ],
)
def test_a_key_given_twice_is_refused(file, more, words):
    """Not the last one silently, whatever stands between them."""
    path = file(MINIMAL + more)
    with pytest.raises(ValueError) as caught:
        load(ExtractConfig, path)
    assert str(caught.value).startswith(f"{path}: not YAML: {words}")
    with pytest.raises(ValueError, match="is not a YAML value"):
        load(ExtractConfig, file(MINIMAL), ["job={replicas: 2, replicas: 4}"])


def test_a_merge_may_be_overridden(file):
    """`<<` brings defaults; what stands beside it wins, as YAML says."""
    text = MINIMAL + "job: {<<: &few {replicas: 1, unit_rows: 3}, unit_rows: 5}\n"
    job = load(ExtractConfig, file(text)).job
    assert (job.replicas, job.unit_rows) == (1, 5)


def test_every_problem_is_reported_at_once_with_did_you_mean(file):
    """Unknown keys, wrong types, missing sections and broken overrides come together, each on a line with its field."""
    path = file("input: {path: in, text_colum: t}\nengine: {model: m, max_modellen: 4}\njob: {unit_rows: 0}\n")
    with pytest.raises(ValueError) as caught:
        load(ExtractConfig, path, ["nonsense", "job.replicas=many"])
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    text = "\n".join(lines)
    assert "input.text_colum: unknown field (did you mean text_column?)" in text
    assert "engine.max_modellen: unknown field (did you mean max_model_len?)" in text
    assert "output: missing" in text
    assert "job.unit_rows: " in text
    assert "job.replicas: " in text
    assert "'nonsense'" in text
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML"),
        ("[a]: 1\n", "not YAML"),
        ("? {a: 1}\n: 2\n", "not YAML"),
        ("- 1\n", "expected `key: value` lines"),
        ("", "expected `key: value` lines"),
    ],
)
def test_files_that_are_no_mapping(file, text, words):
    """A broken file is one line that names it."""
    with pytest.raises(ValueError, match=words) as caught:
        load(ExtractConfig, file(text))
    assert len(str(caught.value).splitlines()) == 1


def test_missing_file(tmp_path):
    """So is a missing one."""
    with pytest.raises(ValueError, match=r"nowhere\.yaml: no such file"):
        load(ExtractConfig, tmp_path / "nowhere.yaml")


def test_secrets_are_never_dumped(file):
    """Credentials in URIs and in engine.extra are replaced; counts of tokens are not credentials."""
    secrets = ["input.path=s3://KEY:SECRET@bucket/x", "engine.extra={hf_token: SECRET, max_num_batched_tokens: 5}"]
    dumped = dump(load(ExtractConfig, file(MINIMAL), secrets))
    assert "SECRET" not in str(dumped)
    assert dumped["input"]["path"] == "s3://***@bucket/x"
    assert dumped["engine"]["extra"] == {"hf_token": "***", "max_num_batched_tokens": 5}
    assert dumped["windows"]["max_tokens"] == 512


def test_every_field_says_what_it_is():
    """Configs are read by people: a field without a line about it is a defect (sections speak for themselves)."""
    values = [value for module in (of_engine, of_extraction, of_verification, index) for value in vars(module).values()]
    sections = {kind for kind in values if isinstance(kind, type) and issubclass(kind, Config)}
    assert len(sections) >= 12
    undocumented = {
        f"{section.__name__}.{name}"
        for section in sections
        for name, field in section.model_fields.items()
        if not field.description and not (isinstance(field.annotation, type) and issubclass(field.annotation, Config))
    }
    assert undocumented == set()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["job.num_gpus=1", "engine.tensor_parallel_size=2"], "engine.tensor_parallel_size=2 takes 2"),
        (["job.num_gpus=0.5", "job.replicas=2"], r"2 engines share a GPU.*gpu_memory_utilization=0.9.*set it to 0.45"),
        (["job.num_gpus=0.3", "job.replicas=9", "engine.gpu_memory_utilization=0.4"], "3 engines share a GPU.*0.30"),
    ],
)
def test_gpus_that_do_not_suffice(file, overrides, message):
    """A replica reserves what its engine takes, and engines of one GPU share its memory."""
    with pytest.raises(ValueError, match=message):
        load(ExtractConfig, file(MINIMAL), overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["job.num_gpus=0", "engine.tensor_parallel_size=2"],  # on a CPU
        ["job.num_gpus=2", "engine.tensor_parallel_size=2"],
        ["job.num_gpus=0.5"],  # alone on its GPU
        ["job.num_gpus=0.5", "job.replicas=2", "engine.gpu_memory_utilization=0.45"],
    ],
)
def test_gpus_that_suffice(file, overrides):
    """Nothing to say."""
    load(ExtractConfig, file(MINIMAL), overrides)
