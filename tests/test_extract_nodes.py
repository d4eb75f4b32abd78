"""The extraction job on a Ray cluster of several nodes, each with its own processes, of which some are lost."""

import re
import socket
import urllib.request
from collections import Counter

import pytest
from faults import ROWS, ScriptedJob, check_whole, count_rows, finish
from processes import wait_until
from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
DELAY = 0.012  # of an answer, in seconds: 64 for all; with 0.008 all was read once before the lost replica was noticed
STORE = {"object_store_memory": 100 * 2**20}


@pytest.fixture
def job(tmp_path, random_model):
    """A corpus of uneven shards and the scripted job on it."""
    return ScriptedJob(tmp_path, random_model)


@pytest.fixture
def metrics_port():
    """A port that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def cluster(job, metrics_port, monkeypatch):
    """A head without CPUs, which no replica fits on; tests add nodes and take them away."""
    for name, value in job.environment(DELAY).items():
        monkeypatch.setenv(name, value)
    head = {"num_cpus": 0, "include_dashboard": False, "metrics_export_port": metrics_port, **STORE}
    head["_system_config"] = {"metrics_report_interval_ms": 500}
    running = Cluster(initialize_head=True, head_node_args=head)
    monkeypatch.setenv("RAY_ADDRESS", running.address)
    yield running
    running.shutdown()


def metrics(port):
    """What Prometheus would read of a run at the head: values by name, those of several labels added up."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    values = Counter()
    for name, value in re.findall(r"^ray_ner_batch_(\w+)\{.*\} (\S+)$", text, re.MULTILINE):
        values[name] += float(value)
    return values


def test_lost_nodes_end_no_run(job, cluster, metrics_port):
    """Two of two nodes are lost, one after the other, with their replicas and all those held; one comes in their place.

    Prometheus is told. No engine has died by that: with `max_engine_deaths: 0` the first death would end the job. The replica that has no
    node any more holds up nothing.
    """
    first, second = (cluster.add_node(num_cpus=1, **STORE) for _ in range(2))
    process = job.start("job.max_engine_deaths=0", "job.replicas=2", delay=DELAY)
    wait_until(lambda: len(job.files()) >= 6, process)
    cluster.remove_node(first, allow_graceful=False)
    cluster.add_node(num_cpus=1, **STORE)
    before = len(job.files())
    wait_until(lambda: len(job.files()) >= before + 6, process)
    wait_until(lambda: metrics(metrics_port).get("replicas_lost", 0) == 1, process)
    seen = metrics(metrics_port)
    assert seen["replicas"] == 2
    assert seen["engine_deaths"] == 0
    assert 0 < seen["rows_by_status"] <= seen["rows"] < ROWS
    assert seen["units_written"] >= 6
    cluster.remove_node(second, allow_graceful=False)
    output = finish(process)
    assert f"rows in {ROWS:,} = rows out {ROWS:,} = " in output
    check_whole(job)
    counts = count_rows(job)
    assert (counts["rows out"], counts["lost"], counts["doubled"]) == (ROWS, 0, 0)
    assert counts["predicted again"] < ROWS / 2
