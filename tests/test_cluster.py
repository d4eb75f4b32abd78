"""The manifests in cluster/: valid against KubeRay's schema, and true to the repository."""

import gzip
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

from ner_batch.config import load
from ner_batch.errors import UserError
from ner_batch.extract.settings import ExtractConfig
from ner_batch.jobs.cluster import session

ROOT = Path(__file__).parent.parent
SCHEMAS = Path(__file__).parent / "schemas"
MANIFESTS = sorted((ROOT / "cluster").glob("*.yaml"))


def test_the_collection_is_complete():
    """A glob that finds nothing would make the tests below pass for the wrong reason."""
    assert [path.name for path in MANIFESTS] == ["extract.rayjob.yaml"]


def closed(schema):
    """The schema with unknown fields refused, as the API server does under strict field validation."""
    if isinstance(schema, dict):
        inner = {key: closed(value) for key, value in schema.items()}
        free = schema.get("additionalProperties") or schema.get("x-kubernetes-preserve-unknown-fields")
        return inner | ({"additionalProperties": False} if "properties" in schema and not free else {})
    return [closed(part) for part in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifest_validates_against_the_custom_resource_definition(path):
    """Every field exists in the served version of the CRD and has the right type."""
    manifest = yaml.safe_load(path.read_text())
    crd_file = SCHEMAS / f"ray.io_{manifest['kind'].lower()}s.yaml.gz"
    crd = yaml.load(gzip.decompress(crd_file.read_bytes()), yaml.CSafeLoader)  # 1.4 MB: 28 s in pure Python
    version = manifest["apiVersion"].partition("/")[2]
    schema = next(v for v in crd["spec"]["versions"] if v["name"] == version and v["served"])
    spec = closed(schema["schema"]["openAPIV3Schema"]["properties"]["spec"])
    # Quantities such as 8Gi are "int or string" in Kubernetes' own dialect; jsonschema passes over that keyword.
    jsonschema.validate(manifest["spec"], spec)
    wrong = manifest["spec"] | {"shutdownAfterJobFinishs": True}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, spec)


def test_the_entrypoint_is_a_command_that_exists_and_its_overrides_fit_the_config():
    """`python /app/jobs/extract.py CONFIG a.b=c ...`: files exist and the overridden config loads."""
    spec = yaml.safe_load((ROOT / "cluster" / "extract.rayjob.yaml").read_text())["spec"]
    python, script, config, *overrides = spec["entrypoint"].split()
    assert python == "python"
    local = [ROOT / Path(name).relative_to("/app") for name in (script, config)]
    assert all(path.is_file() for path in local)
    loaded = load(ExtractConfig, local[1], overrides)
    workers = spec["rayClusterSpec"]["workerGroupSpecs"]
    gpus = sum(g["replicas"] * int(gpu_limit(g)) for g in workers)
    assert loaded.job.replicas * loaded.engine.tensor_parallel_size == gpus


def gpu_limit(group):
    """GPUs of one pod of a worker group."""
    return group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]


def test_ray_version_is_the_one_that_is_locked():
    """Head, workers and driver must speak the same Ray."""
    spec = yaml.safe_load((ROOT / "cluster" / "extract.rayjob.yaml").read_text())["spec"]
    locked = (ROOT / "requirements" / "gpu.lock").read_text().splitlines()
    assert f"ray=={spec['rayClusterSpec']['rayVersion']}" in locked
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert any(r.startswith("ray[") and r.endswith("==2.60.*") for r in requirements)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no-such-host.invalid:6379"])
def test_an_address_where_nobody_answers_is_one_line(address):
    """Ray itself waits for minutes, without a word."""
    with pytest.raises(UserError) as caught, session(address):
        pass
    assert str(caught.value).startswith(f"Ray address {address}: ")
    assert len(str(caught.value).splitlines()) == 1
