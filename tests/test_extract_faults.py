"""The extraction job under fire: real Ray, real processes, real Parquet, a scripted engine in vLLM's place."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from faults import FAULTS, ROWS, SCHEMA, UNIT_ROWS, ScriptedJob, check_whole, count_rows, finish, table
from processes import kill_session, wait_until
from s3_server import CREDENTIALS, Proxy, s3_server
from scripted import POISON, predict_one

from ner_batch.data import predictions_of
from ner_batch.errors import UserError
from ner_batch.extraction.status import status

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]
KILLS = 2  # each a start of Ray, some ten seconds; ten of them were clean too


@pytest.fixture
def job(tmp_path, random_model):
    """A corpus of uneven shards and the scripted job on it."""
    return ScriptedJob(tmp_path, random_model)


def test_kills_lose_nothing_double_nothing_and_repeat_no_finished_unit(job):
    """kill -9 of the driver at random moments, several times; then a run to the end. Finished units are never touched.

    `ner-batch status` tells of it from another process. While the first run lives a second one is refused.
    """
    with pytest.raises(UserError, match="no extraction has begun here"):
        status(str(job.out))
    rng = random.Random(1)
    for kill in range(KILLS):
        before = job.files()
        process = job.start(delay=0.004 if kill else 0.02)
        # From before Ray is up to deep in the work: some kills must hit while units are being written.
        target = len(before) + rng.choice([0, 1, 1, 2, 3, 5])
        wait_until(lambda target=target: len(job.files()) >= target, process)
        time.sleep(rng.random() * 0.3)  # kill at any moment, not at the one that a file appears
        if not kill:
            check_refused(job, process)
        assert process.poll() is None, process.stdout.read()
        os.kill(process.pid, signal.SIGKILL)
        kill_session(process)
        assert status(str(job.out)).state == "killed"
        after = job.files()
        assert {name: after[name] for name in before} == before
        assert not (job.out / "_SUCCESS").exists()
    finished = job.files()
    assert len(finished) >= 1
    output = finish(job.start())
    assert f"rows in {ROWS:,} = rows out {ROWS:,} = " in output
    check_whole(job)
    after = job.files()
    assert {name: after[name] for name in finished} == finished
    # Computed again at each kill: at most the units in flight (1 replica x 2) and those predicted and not yet written,
    # of which Ray Data holds back as many as the replica may have waiting (2 x 2).
    assert sum(count - 1 for count in job.computed().values()) <= KILLS * (2 + 4) * UNIT_ROWS
    assert json.loads((job.out / "_manifest.json").read_text())["rows_out"] == ROWS
    command = [sys.executable, "-m", "ner_batch", "status", str(job.out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert run["state"] == "complete"
    assert run["rows_written"] == run["rows"] == sum(run["statuses"].values()) == ROWS
    assert len(run["runs"]) == 1  # a killed one writes none


def check_refused(job, process):
    """While a process runs the job, another one is refused, and the status names it."""
    second = job.start()
    output = second.communicate()[0]
    assert second.returncode == 2, output
    assert f"is being written by process {process.pid} on" in output
    running = status(str(job.out))
    assert (running.state, running.rows, running.complete) == ("running", ROWS, False)
    assert running.rows_written == sum(running.statuses.values()) < ROWS
    assert f"process   {process.pid} on" in "\n".join(running.lines)


@pytest.mark.parametrize(
    ("killed", "most_again"),
    # A replica's units in flight are predicted again; a read is read again, a write written again, and no more.
    [("replica", 2 * UNIT_ROWS), ("read worker", 0), ("write worker", 0)],
)
def test_a_killed_worker_costs_its_own_work_and_no_more(job, killed, most_again):
    """kill -9 of one process of the pipeline: the job goes on by itself, nothing is lost or doubled."""
    FAULTS[f"kill -9 of the {killed}"](job)
    check_whole(job)
    counts = count_rows(job)
    assert (counts["rows out"], counts["lost"], counts["doubled"]) == (ROWS, 0, 0)
    assert counts["predicted again"] <= most_again


@pytest.mark.usefixtures("in_cluster")
def test_storage_that_stays_away_ends_the_run(job):
    """After job.storage_wait_seconds, in one line and with exit code 1: no night is spent on answers nobody can keep."""
    process = job.start("job.storage_wait_seconds=4", delay=0.004)
    wait_until(lambda: len(job.files()) >= 5, process)
    (job.hold / "disk.full").touch()
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 1, output
    last = output.rstrip().splitlines()[-1]
    assert last.startswith("error: storage has failed for 4 s (job.storage_wait_seconds): [Errno 28] No space left")
    assert not (job.out / "_SUCCESS").exists()
    assert 0 < pads.dataset(job.out, format="parquet").count_rows() < ROWS


def test_credentials_renewed_and_an_object_that_is_lost(job, tmp_path):
    """In one run: a token runs out in the middle, and somebody writes another into the file; one shard's object cannot
    be read any more (its store answers 500), which costs its unit and no others. Then it is mended.
    """
    file = tmp_path / "credentials"

    def renew(key):
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")

    renew("FIRST")
    with s3_server() as (endpoint, client), Proxy(endpoint) as proxy:
        settings = [*job.in_s3(client), "job.storage_wait_seconds=10"]
        keys = {name: "" for name in CREDENTIALS if name != "AWS_REGION"}
        environment = {
            "AWS_SHARED_CREDENTIALS_FILE": str(file),
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_REGION": "us-east-1",
        }
        process = job.start(*settings, delay=0.004, **keys, **environment)
        wait_until(lambda: len(job.fetch(client)) >= 10, process)
        proxy.fail("in/b-one.parquet")
        proxy.expired = "FIRST"
        time.sleep(5)
        renew("SECOND")
        output = process.communicate(timeout=200)[0]
        assert process.returncode == 3, output
        (left_out,) = re.findall(rf"^rows in {ROWS:,} = rows out [\d,]+ \+ (\d+) not done = ", output, re.MULTILINE)
        assert int(left_out) == 1
        assert re.search(r"^not done b-one-\S+: .*Internal Server Error", output, re.MULTILINE), output
        proxy.mend()
        assert f"{ROWS - 1:,} rows done before, 1 to do" in finish(job.start(*settings, **keys, **environment))
        job.fetch(client)
    check_whole(job)
    assert count_rows(job)["predicted again"] == 0


def test_more_units_than_a_pipeline_takes_on_gpus(job):
    """They go through several pipelines, one after the other, and the run adds up; a replica that is new is no death.

    Ray is told of GPUs that are not there: replicas take them, and what it refuses on a GPU machine it refuses here. The
    log is JSON.
    """
    few = "from ner_batch.extraction import job; import scripted; job.PORTION = 40; scripted.main()"
    settings = ["job.replicas=2", "job.max_engine_deaths=0"]
    machine = {"RAY_OVERRIDE_RESOURCES": '{"GPU": 2}', "NER_BATCH_LOG_FORMAT": "json"}
    output = finish(job.start(*settings, code=few, **machine))
    messages = [json.loads(line)["message"] for line in output.splitlines() if line.startswith('{"time"')]
    assert "2 x 1 GPU and 1 CPUs" in messages
    assert messages[-1].startswith(f"rows in {ROWS:,} = rows out {ROWS:,} = ")
    check_whole(job)
    assert count_rows(job)["predicted again"] == 0


@pytest.mark.usefixtures("in_cluster")
def test_units_of_one_row_group_decode_it_once_per_read_worker(job):
    """Twenty units of one row group on three replicas: no replica decodes Parquet, a few workers do, once each.

    Ray gives a read to whatever process is idle, so those that wrote before may read next: three tasks at a time, and one
    process that was there from the start.
    """
    for path in job.corpus.rglob("*.parquet"):
        path.unlink()
    pq.write_table(table("group", 20 * UNIT_ROWS), job.corpus / "one.parquet")
    finish(job.start("job.replicas=3", "job.num_cpus=0.5"))
    check_whole(job)
    assert len(job.files()) == 20
    reads = job.spot("read")
    assert len(reads) == len(set(reads)) <= 4


@pytest.mark.usefixtures("in_cluster")
def test_a_row_that_kills_its_process_is_given_up_alone_and_retry_mends_it(job):
    """Two poisoned rows among 5,340: both `failed` with a reason, everything else right, the job ends by itself.

    Once the cause is gone, `--retry` does these two again, and no other row.
    """
    poisoned = table("poison", 6).to_pylist()
    poisoned[2]["text"] = poisoned[5]["text"] = f"{POISON} Carol"
    pq.write_table(pa.Table.from_pylist(poisoned, schema=SCHEMA), job.corpus / "e-poison.parquet")
    finish(job.start("job.max_engine_deaths=40"))
    out = pads.dataset(job.out, format="parquet").to_table()
    failed = out.filter(pads.field("status") == "failed")
    assert sorted(failed["id"].to_pylist()) == ["poison-2", "poison-5"]
    assert set(failed["error"].to_pylist()) == {"the engine died while it read this row alone; the row was given up"}
    others = out.filter(pads.field("status") != "failed")
    assert others.num_rows == ROWS + 6 - 2
    assert predictions_of(others) == [predict_one(text) for text in others["text"].to_pylist()]
    before, files = job.computed(), job.files()
    output = finish(job.start("--retry", "job.max_engine_deaths=40", NER_BATCH_SCRIPTED_HARMLESS="1"))
    assert f"{ROWS:,} rows done before, 6 to do" in output
    check_whole(job)
    assert job.computed() - before == {f"{POISON} Carol": 2}
    changed = [name for name, written in job.files().items() if files[name] != written]
    assert len(changed) == 1
    assert changed[0].startswith("e-poison")


@pytest.mark.usefixtures("in_cluster")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_run_asked_to_end_saves_state_and_exits_130(job, number):
    """An interrupted run says so, and the next one finishes it. SIGTERM: Ray's handler would end the process at once."""
    process = job.start(delay=0.01)
    wait_until(lambda: len(job.files()) >= 2, process)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert json.loads((job.out / "_manifest.json").read_text())["state"] == "interrupted"
    if number == signal.SIGTERM:
        finish(job.start())
        check_whole(job)


@pytest.mark.usefixtures("in_cluster")
def test_engines_that_always_die_end_the_job(job):
    """No endless crash loop: past job.max_engine_deaths the job stops with one line and exit code 1."""
    pq.write_table(table("poison", 3000, POISON + " {}"), job.corpus / "0-poison.parquet")
    process = job.start("job.max_engine_deaths=3")
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 1, output
    assert output.rstrip().splitlines()[-1].startswith("error: engines died 4 times")


@pytest.mark.usefixtures("in_cluster")
def test_a_bug_on_a_replica_shows_its_traceback(job):
    """An exception that is nobody's fault but ours is no row's status: exit code 1, with where it happened."""
    process = job.start(NER_BATCH_SCRIPTED_BUG="1")
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 1, output
    assert "Traceback" in output
    assert "ZeroDivisionError" in output
    assert "in generate" in output
    assert json.loads((job.out / "_manifest.json").read_text())["state"] == "interrupted"


@pytest.mark.usefixtures("in_cluster")
def test_an_engine_that_refuses_its_config_is_the_users_to_mend(job):
    """What only shows when the engine starts, on a replica: exit code 2 and one line, after what Ray prints itself."""
    process = job.start(NER_BATCH_SCRIPTED_REFUSAL="engine for 'm': no such setting")
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 2, output
    assert output.rstrip().splitlines()[-1] == "error: engine for 'm': no such setting"


@pytest.mark.usefixtures("in_cluster")
def test_an_engine_that_is_killed_at_every_start_ends_the_job(job):
    """By the kernel, say, for want of memory: one line, exit code 1. Ray would start it for ever."""
    process = job.start(NER_BATCH_SCRIPTED_KILLED="1")
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 1, output
    assert len(job.spot("start")) == 3
    last = output.rstrip().splitlines()[-1]
    assert last == "error: a replica was killed while its engine started, 3 times (out of memory?)"


def test_more_gpus_than_any_node_has_are_refused(job):
    """Ray would wait for them for ever: exit code 2, with what is there, in a run and a dry run."""
    for arguments in ([], ["--dry-run"]):
        output = job.start("job.num_gpus=64", *arguments).communicate(timeout=120)[0]
        last = output.rstrip().splitlines()[-1]
        assert last.startswith(
            "error: a replica (job.num_gpus, job.num_cpus) needs 64 GPU, 1 CPU: there is room for 0 of 1"
        )
        assert "nodes have 0 GPU, " in last


@pytest.mark.usefixtures("in_cluster")
def test_what_made_rows_fail_is_told(job):
    """The reason and how often; a dry run whose sample fails makes no estimate of it, and is no success either."""
    failing = {"NER_BATCH_SCRIPTED_FAILING": "LoRA of no kind"}
    process = job.start("--dry-run", **failing)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 3, output
    assert "x LoRA of no kind" in output
    assert "says nothing about the whole" in output
    assert "rows per second" not in output
    process = job.start(**failing)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 3, output
    failed = sum(1 for text in pads.dataset(job.corpus, format="parquet").to_table()["text"].to_pylist() if text)
    assert f"{failed:,} x LoRA of no kind" in output


LIBRARY = """
import sys, ray, yaml
from pathlib import Path
from scripted import POISON, ScriptedEngine
from ner_batch.extraction.settings import JobConfig, RecipeConfig
from ner_batch.extraction.job import extract_dataset
ray.init(log_to_driver=False)
values = yaml.safe_load(Path(sys.argv[1]).read_text())
config = RecipeConfig.model_validate({name: values[name] for name in ("engine", "task")})
texts = ["Alice met Bob"] * 20 + [f"row {i} of Carol" for i in range(20)]
texts[5] = f"{POISON} Dora"
rows = ray.data.from_items([{"n": i, "text": text} for i, text in enumerate(texts)], override_num_blocks=4)
job = JobConfig(units_in_flight=2, max_engine_deaths=int(sys.argv[2]))
out = extract_dataset(rows, config, batch_rows=5, job=job, start_engine=ScriptedEngine).take_all()
assert sorted(row["n"] for row in out) == list(range(40))
print("failed", sorted(row["n"] for row in out if row["status"] == "failed"))
print("entities", sum(len(row["entities"]) for row in out))
"""


@pytest.mark.usefixtures("in_cluster")
@pytest.mark.parametrize(("deaths", "code"), [(40, 0), (2, 1)])
def test_the_library_call_bisects_too_and_has_an_end(job, deaths, code):
    """A poisoned row of one's own dataset, among batches of equal texts: given up alone, or the job ends by its limit."""
    process = job.start(str(deaths), code=LIBRARY)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == code, output
    if code:
        assert f"engines died {deaths + 1} times" in output
    else:
        assert "failed [5]" in output
        assert "entities 58" in output  # 19 rows of two, 20 of one
