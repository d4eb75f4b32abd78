"""The extraction job on a Ray cluster of several nodes, each with its own processes, of which some are lost."""

import pytest
from faults import ROWS, ScriptedJob, check_whole, count_rows, finish, wait_until
from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
DELAY = 0.008  # of an answer, in seconds
STORE = {"object_store_memory": 100 * 2**20}


@pytest.fixture
def job(tmp_path, random_model):
    """A corpus of uneven shards and the scripted job on it."""
    return ScriptedJob(tmp_path, random_model)


@pytest.fixture
def cluster(job, monkeypatch):
    """A head without CPUs, which no replica fits on; tests add nodes and take them away."""
    for name, value in job.environment(DELAY).items():
        monkeypatch.setenv(name, value)
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **STORE})
    monkeypatch.setenv("RAY_ADDRESS", running.address)
    yield running
    running.shutdown()


def test_lost_nodes_end_no_run(job, cluster):
    """Two of two nodes are lost, one after the other, with their replicas and all those held; one comes in their place.

    No engine has died by that: with `max_engine_deaths: 0` the first death would end the job. The replica that has no
    node any more holds up nothing.
    """
    first, second = (cluster.add_node(num_cpus=1, **STORE) for _ in range(2))
    process = job.start("job.max_engine_deaths=0", "job.replicas=2", delay=DELAY)
    wait_until(lambda: len(job.files()) >= 6, process)
    cluster.remove_node(first, allow_graceful=False)
    cluster.add_node(num_cpus=1, **STORE)
    before = len(job.files())
    wait_until(lambda: len(job.files()) >= before + 6, process)
    cluster.remove_node(second, allow_graceful=False)
    output = finish(process)
    assert f"rows in {ROWS:,} = rows out {ROWS:,} = " in output
    check_whole(job)
    counts = count_rows(job)
    assert (counts["rows out"], counts["lost"], counts["doubled"]) == (ROWS, 0, 0)
    assert counts["predicted again"] < ROWS / 2
