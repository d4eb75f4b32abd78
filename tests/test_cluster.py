"""The manifests in cluster/: valid against KubeRay's schema, and true to the repository."""

import copy
import gzip
import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from ner_batch.config import load
from ner_batch.errors import JobError, UserError
from ner_batch.extraction.settings import ExtractConfig
from ner_batch.jobs.cluster import session
from ner_batch.train.settings import TrainConfig

ROOT = Path(__file__).parent.parent
RAY_SCHEMA = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
SCHEMAS = Path(__file__).parent / "schemas"
MANIFESTS = sorted(path for path in (ROOT / "cluster").glob("*.yaml") if path.name != "vms.aws.yaml")


def test_the_collection_is_complete():
    """A glob that finds nothing would make the tests below pass for the wrong reason."""
    assert [path.name for path in MANIFESTS] == ["extract.rayjob.yaml", "raycluster.yaml", "train.rayjob.yaml"]


def closed(schema):
    """The schema with unknown fields refused, as the API server does under strict field validation."""
    if isinstance(schema, dict):
        inner = {key: closed(value) for key, value in schema.items()}
        free = schema.get("additionalProperties") or schema.get("x-kubernetes-preserve-unknown-fields")
        return inner | ({"additionalProperties": False} if "properties" in schema and not free else {})
    return [closed(part) for part in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifest_validates_against_the_custom_resource_definition(path):
    """Every field exists in the served version of the CRD and has the right type; a cluster is a part of a job's."""
    manifest = yaml.safe_load(path.read_text())
    crd_file = SCHEMAS / "ray.io_rayjobs.yaml.gz"
    crd = yaml.load(gzip.decompress(crd_file.read_bytes()), yaml.CSafeLoader)  # 1.4 MB: 28 s in pure Python
    version = manifest["apiVersion"].partition("/")[2]
    schema = next(v for v in crd["spec"]["versions"] if v["name"] == version and v["served"])
    spec = closed(schema["schema"]["openAPIV3Schema"]["properties"]["spec"])
    spec = spec["properties"]["rayClusterSpec"] if manifest["kind"] == "RayCluster" else spec
    # Quantities such as 8Gi are "int or string" in Kubernetes' own dialect; jsonschema passes over that keyword.
    jsonschema.validate(manifest["spec"], spec)
    wrong = manifest["spec"] | {"shutdownAfterJobFinishs": True}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, spec)


def cluster_of(path):
    """The part of a manifest that describes a Ray cluster."""
    spec = yaml.safe_load(path.read_text())["spec"]
    return spec.get("rayClusterSpec", spec)


@pytest.mark.parametrize(("name", "kind"), [("extract", ExtractConfig), ("train", TrainConfig)])
def test_the_entrypoint_is_a_command_that_exists_and_its_overrides_fit_the_config(name, kind):
    """`python /app/jobs/extract.py CONFIG a.b=c ...`: files exist and the overridden config loads."""
    path = ROOT / "cluster" / f"{name}.rayjob.yaml"
    python, script, config, *overrides = yaml.safe_load(path.read_text())["spec"]["entrypoint"].split()
    assert (python, script) == ("python", f"/app/jobs/{name}.py")
    local = [ROOT / Path(file).relative_to("/app") for file in (script, config)]
    assert all(file.is_file() for file in local)
    loaded = load(kind, local[1], overrides)
    gpus = sum(group["replicas"] * int(gpu_limit(group)) for group in cluster_of(path)["workerGroupSpecs"])
    wanted = loaded.run.workers if name == "train" else loaded.job.replicas * loaded.engine.tensor_parallel_size
    assert wanted == gpus
    places = [loaded.output, loaded.run.storage] if name == "train" else [loaded.output.path]
    assert all(place.startswith("s3://") for place in places)


def gpu_limit(group):
    """GPUs of one pod of a worker group."""
    return group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]


def test_virtual_machines_validate_against_the_schema_of_ray():
    """As `ray up` does it, but for what only the provider knows; the image is that of the other manifests."""
    config = yaml.safe_load((ROOT / "cluster" / "vms.aws.yaml").read_text())
    validate_config(prepare_config(copy.deepcopy(config)))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config | {"max_worker": 1}, json.loads(RAY_SCHEMA.read_text()))
    assert config["head_node_type"] in config["available_node_types"]
    images = {config["docker"]["image"]}
    for path in MANIFESTS:
        cluster = cluster_of(path)
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
            images |= {container["image"] for container in group["template"]["spec"]["containers"]}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert images == {f"my-registry/ner-batch:{version}"}


def test_the_image_holds_what_the_lock_pins():
    """The Dockerfile installs the lock and nothing else, on the lock's Python; what it copies exists, and is sent to it."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    (base,) = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert base.startswith("python:3.11-")
    installs = [line for line in lines if "pip install" in line]
    assert all("--no-deps" in line for line in installs)
    assert "--requirement requirements/gpu.lock" in installs[0]
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert all((ROOT / name).exists() for name in copied)
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sent == set(copied)
    for path in MANIFESTS:  # what an entrypoint names lies where the image puts it
        head = cluster_of(path)["headGroupSpec"]["template"]["spec"]["containers"][0]
        assert f"WORKDIR {head['workingDir']}" in lines


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_ray_version_is_the_one_that_is_locked(path):
    """Head, workers and driver must speak the same Ray."""
    locked = (ROOT / "requirements" / "gpu.lock").read_text().splitlines()
    assert f"ray=={cluster_of(path)['rayVersion']}" in locked
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert any(r.startswith("ray[") and r.endswith("==2.60.*") for r in requirements)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no-such-host.invalid:6379"])
def test_an_address_where_nobody_answers_is_one_line(address):
    """Ray itself waits for minutes, without a word."""
    with pytest.raises(UserError) as caught, session(address):
        pass
    assert str(caught.value).startswith(f"Ray address {address}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_ray_that_does_not_start_is_one_line(monkeypatch):
    """As where a machine is so busy that Ray's processes are not up in its 30 s; here for a variable that it cannot read."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", "no JSON")
    with pytest.raises(JobError, match=r"^Ray did not start on this machine: .+") as caught, session(None):
        pass
    assert len(str(caught.value).splitlines()) == 1
