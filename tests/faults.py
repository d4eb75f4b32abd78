"""What a fault costs the extraction job: a process ended at a chosen moment, and the rows counted afterwards.

`python tests/faults.py` prints the table of docs/benchmarks.md; tests/test_extract_faults.py asserts what is in it. Real
Ray, real processes, real Parquet, a scripted engine (scripted.py).
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import yaml
from processes import in_session, kill_session, parquet_files, wait_until
from random_model import save_random_model
from ray.cluster_utils import Cluster
from s3_server import BUCKET, CREDENTIALS, Proxy, s3_server
from scripted import predict_one
from tiny import ADAPTER, BASE, TASK, gold

from ner_batch.data import predictions_of

HERE = Path(__file__).parent
NESTED = pa.struct([("tags", pa.list_(pa.int32())), ("source", pa.string())])
SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string()), ("meta", NESTED)])
ROWS = 5334
UNIT_ROWS = 100


def table(name: str, rows: int, text: str = "row {} of Alice met Bob") -> pa.Table:
    """Rows whose texts are all different, every seventh one null."""
    texts = [text.format(f"{name}-{i}") if i % 7 else None for i in range(rows)]
    meta = [{"tags": [i, i + 1], "source": name} if i % 3 else None for i in range(rows)]
    return pa.table({"id": [f"{name}-{i}" for i in range(rows)], "text": texts, "meta": meta}, schema=SCHEMA)


class ScriptedJob:
    """A corpus of uneven shards of 5,334 rows in a folder, and the scripted job on it."""

    def __init__(self, folder: Path, model: str) -> None:
        self.folder, self.out = folder, folder / "out"
        self.corpus, self.log, self.hold = folder / "corpus", folder / "log", folder / "hold"
        for path in (self.corpus / "deep", self.log, self.hold):
            path.mkdir(parents=True)
        pq.write_table(table("empty", 0), self.corpus / "a-empty.parquet")
        pq.write_table(table("one", 1), self.corpus / "b-one.parquet")
        pq.write_table(table("many", 5000), self.corpus / "c-many.parquet", row_group_size=777)
        pq.write_table(table("some", 333), self.corpus / "deep" / "d-some.parquet", row_group_size=50)
        (folder / "task.yaml").write_text("name: t\nlabels: [NAME]\n")
        config = {
            "input": {"path": str(self.corpus)},
            "output": {"path": str(self.out)},
            "engine": {"model": model, "max_model_len": 8192},
            "task": str(folder / "task.yaml"),
            "job": {"unit_rows": UNIT_ROWS, "units_in_flight": 2},
        }
        (folder / "job.yaml").write_text(yaml.safe_dump(config))

    def start(
        self, *arguments: str, delay: float = 0.0, code: str = "import scripted; scripted.main()", **environment: str
    ) -> subprocess.Popen[str]:
        """The job as a process of its own session; ``delay`` is the scripted engine's, in seconds a prompt.

        On a cluster that is named (RAY_ADDRESS) its workers have the same environment as on a Ray of its own.
        """
        own = environment | self.environment(delay)
        env = os.environ | own
        if "RAY_ADDRESS" in env:
            env["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps({"runtime_env": {"env_vars": own}})
        command = [sys.executable, "-c", code, str(self.folder / "job.yaml"), *arguments]
        return subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def environment(self, delay: float = 0.0) -> dict[str, str]:
        """What the job's processes must have in theirs; of a cluster that it joins, the nodes."""
        return {
            "NER_BATCH_SCRIPTED_LOG": str(self.log),
            "NER_BATCH_SCRIPTED_DELAY": str(delay),
            "NER_BATCH_HOLD": str(self.hold),
            "PYTHONUNBUFFERED": "",  # as on a user's machine, whatever is set on this one
            "PYTHONPATH": os.pathsep.join([str(HERE / "hold"), str(HERE), str(HERE.parent)]),
        }

    def files(self) -> dict[str, int]:
        """The visible output files, by name, with what tells one writing from another."""
        return parquet_files(self.out)

    def in_s3(self, client: Any) -> tuple[str, str]:
        """Put the corpus into the bucket; the overrides by which the job reads it there and writes there."""
        for path in self.corpus.rglob("*.parquet"):
            client.upload_file(str(path), BUCKET, f"in/{path.relative_to(self.corpus)}")
        return f"input.path=s3://{BUCKET}/in", f"output.path=s3://{BUCKET}/out"

    def fetch(self, client: Any) -> dict[str, int]:
        """Bring what is new of the output from the bucket into the folder; as :meth:`files`."""
        self.out.mkdir(exist_ok=True)
        for entry in client.list_objects_v2(Bucket=BUCKET, Prefix="out/").get("Contents", []):
            path = self.out / entry["Key"].removeprefix("out/")
            passing = path.name == "_running.json" or path.name.startswith(".")  # gone when we have looked
            if not path.exists() and not passing:
                client.download_file(BUCKET, entry["Key"], str(path))
        return self.files()

    def computed(self) -> Counter[str]:
        """How often each text was predicted, over all runs."""
        return Counter(line for log in self.log.iterdir() for line in log.read_text().splitlines())

    def spot(self, name: str) -> list[int]:
        """The processes that passed a spot (``read``, ``write``), in order."""
        log = self.hold / f"{name}.log"
        return [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []


def no_fault(job: ScriptedJob) -> str:
    """Nothing happens: what the others are compared with."""
    return finish(job.start(delay=0.004))


def kill_driver(job: ScriptedJob, *arguments: str) -> str:
    """kill -9 of the driver and all it started, in the middle of the work; then the same command to the end."""
    process = job.start(*arguments, delay=0.004)
    wait_until(lambda: len(job.files()) >= 10, process)
    os.kill(process.pid, signal.SIGKILL)
    kill_session(process)
    return finish(job.start(*arguments, delay=0.004))


def interrupt(number: signal.Signals) -> Callable[[ScriptedJob], str]:
    """The driver is asked to end (SIGTERM, Ctrl-C) in the middle of the work; then the same command to the end."""

    def fault(job: ScriptedJob) -> str:
        process = job.start(delay=0.004)
        wait_until(lambda: len(job.files()) >= 10, process)
        process.send_signal(number)
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 130, output
        return finish(job.start(delay=0.004))

    return fault


def kill_driver_of_small_shards(job: ScriptedJob) -> str:
    """A thousand shards of one row besides the others; then as :func:`kill_driver`."""
    for number in range(1000):
        pq.write_table(table(f"small-{number}", 1, "row {} of Bob"), job.corpus / f"0-small-{number:04}.parquet")
    return kill_driver(job)


def kill_driver_of_lines(job: ScriptedJob) -> str:
    """kill -9 of the driver: the same rows as JSON lines, compressed and not."""
    lines = job.folder / "lines"
    lines.mkdir()
    for shard in job.corpus.rglob("*.parquet"):
        text = "".join(f"{json.dumps(row)}\n" for row in pq.read_table(shard).to_pylist())
        if shard.stem == "c-many":
            (lines / f"{shard.stem}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
        elif text:
            (lines / f"{shard.stem}.jsonl").write_text(text)
    return kill_driver(job, f"input.path={lines}")


def kill_driver_of_growing_input(job: ScriptedJob) -> str:
    """As :func:`kill_driver`; before the second start another shard has come."""
    process = job.start(delay=0.004)
    wait_until(lambda: len(job.files()) >= 10, process)
    kill_session(process)
    pq.write_table(table("late", 500), job.corpus / "z-late.parquet")
    return finish(job.start(delay=0.004))


def start_twice(job: ScriptedJob) -> str:
    """While a run works, a second one on its output is refused."""
    process = job.start(delay=0.004)
    wait_until(lambda: len(job.files()) >= 10, process)
    second = job.start(delay=0.004)
    output = second.communicate(timeout=60)[0]
    assert second.returncode == 2, output
    return finish(process)


def cut_shard(job: ScriptedJob) -> str:
    """One shard lacks its end: the others are done, exit code 3; it is mended, and the same command does the rest."""
    shard = job.corpus / "e-cut.parquet"
    pq.write_table(table("cut", 500), shard)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    process = job.start(delay=0.004)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 3, output
    shard.write_bytes(whole)
    return finish(job.start(delay=0.004))


def read_a_long_row(job: ScriptedJob) -> str:
    """A text of 50 MB among the others."""
    long = table("long", 1).to_pylist()
    long[0]["text"] = "".join(f"The ship {number:07} went down the river. " for number in range(50_000_000 // 39))
    pq.write_table(pa.Table.from_pylist(long, schema=SCHEMA), job.corpus / "e-long.parquet")
    return finish(job.start(), seconds=1200)


def signal_engine(number: signal.Signals) -> Callable[[ScriptedJob], str]:
    """A real engine, its core in a process of its own as on a GPU: that is killed, or stopped, which the watchdog sees."""

    def fault(job: ScriptedJob) -> str:
        shutil.rmtree(job.corpus)
        job.corpus.mkdir()
        texts = [example.text for example in gold("train")[:400]]
        rows = {"id": list(map(str, range(len(texts)))), "text": texts, "meta": [None] * len(texts)}
        pq.write_table(pa.table(rows, schema=SCHEMA), job.corpus / "real.parquet")
        cli = "import sys; sys.argv.insert(1, 'extract'); from ner_batch.cli import main; main()"
        settings = [f"engine.model={BASE}", f"adapter={ADAPTER}", f"task={TASK}", "engine.max_model_len=2048"]
        settings += ["engine.in_process=false", "engine.stall_seconds=10", "engine.enforce_eager=true"]
        settings += ["engine.cpu_kv_cache_gib=1", "engine.max_num_seqs=16", "job.unit_rows=40"]
        process = job.start(*settings, code=cli)
        wait_until(lambda: len(job.files()) >= 2, process, seconds=240)
        (core,) = in_session(process.pid, "VLLM::EngineCor")
        os.kill(core, number)
        return finish(process, seconds=600)

    return fault


def lose_node(job: ScriptedJob) -> str:
    """kill -9 of one of two nodes with its replica, in the middle of the work; another node comes."""
    store, before = {"object_store_memory": 100 * 2**20}, dict(os.environ)
    os.environ.update(job.environment(0.008))  # what a node's processes have
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store})
    try:
        first, _ = (nodes.add_node(num_cpus=1, **store) for _ in range(2))
        process = job.start("job.replicas=2", delay=0.008, RAY_ADDRESS=nodes.address)
        wait_until(lambda: len(job.files()) >= 6, process)
        nodes.remove_node(first, allow_graceful=False)
        nodes.add_node(num_cpus=1, **store)
        return finish(process)
    finally:
        nodes.shutdown()
        os.environ.clear()
        os.environ.update(before)


def kill_replica(job: ScriptedJob) -> str:
    """kill -9 of the replica in the middle of the work; Ray starts another."""
    process = job.start(delay=0.004)
    wait_until(lambda: len(job.files()) >= 10, process)
    (replica,) = in_session(process.pid, "ray::.*Replica")
    os.kill(replica, signal.SIGKILL)
    return finish(process)


def fill_disk(job: ScriptedJob) -> str:
    """The disk is full for ten seconds in the middle of the work, then somebody makes room."""
    process = job.start(delay=0.004)
    wait_until(lambda: len(job.files()) >= 10, process)
    (job.hold / "disk.full").touch()
    time.sleep(10)
    (job.hold / "disk.full").unlink()
    return finish(process)


def lose_storage(job: ScriptedJob) -> str:
    """Input and output in S3, whose server drops every connection for half a minute in the middle of the work."""
    with s3_server() as (endpoint, client), Proxy(endpoint) as proxy:
        places = job.in_s3(client)
        process = job.start(*places, delay=0.004, **CREDENTIALS, AWS_ENDPOINT_URL=proxy.url)
        wait_until(lambda: len(job.fetch(client)) >= 10, process)
        proxy.fail(f"/{BUCKET}", how="dropped")
        time.sleep(30)
        proxy.mend()
        output = finish(process)
        job.fetch(client)
        return output


def disturb_storage(job: ScriptedJob) -> str:
    """Input and output in S3: a fifth of a second for every request, and 60 of them fail in the middle of the work."""
    with s3_server() as (endpoint, client), Proxy(endpoint) as proxy:
        places = job.in_s3(client)
        proxy.delay = 0.2
        process = job.start(*places, delay=0.004, **CREDENTIALS, AWS_ENDPOINT_URL=proxy.url)
        wait_until(lambda: len(job.fetch(client)) >= 10, process)
        for how in ("500", "cut", "dropped"):
            proxy.fail(f"/{BUCKET}", 20, how)
        output = finish(process)
        job.fetch(client)
        return output


def expire_token(job: ScriptedJob) -> str:
    """Input and output in S3: the token runs out in the middle of the work, and ten seconds later there is another."""
    file = job.folder / "credentials"
    form = "[default]\naws_access_key_id = {}\naws_secret_access_key = secret\n"
    file.write_text(form.format("FIRST"))
    with s3_server() as (endpoint, client), Proxy(endpoint) as proxy:
        environment = dict.fromkeys(CREDENTIALS, "") | {"AWS_REGION": CREDENTIALS["AWS_REGION"]}
        environment |= {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_ENDPOINT_URL": proxy.url}
        process = job.start(*job.in_s3(client), delay=0.004, **environment)
        wait_until(lambda: len(job.fetch(client)) >= 10, process)
        proxy.expired = "FIRST"
        time.sleep(10)
        file.write_text(form.format("SECOND"))
        output = finish(process)
        job.fetch(client)
        return output


def kill_held(spot: str, passages: int) -> Callable[[ScriptedJob], str]:
    """kill -9 of a worker that is in the middle of a read or write after so many others."""

    def fault(job: ScriptedJob) -> str:
        process = job.start(delay=0.004)
        wait_until(lambda: len(job.spot(spot)) >= passages, process)
        (job.hold / f"{spot}.hold").touch()
        held = len(job.spot(spot))
        wait_until(lambda: len(job.spot(spot)) > held, process)
        os.kill(job.spot(spot)[-1], signal.SIGKILL)
        (job.hold / f"{spot}.hold").unlink()
        return finish(process)

    return fault


FAULTS: dict[str, Callable[[ScriptedJob], str]] = {
    "nothing": no_fault,
    "kill -9 of the driver": kill_driver,
    "the same, with a thousand shards of one row": kill_driver_of_small_shards,
    "the same, with JSON lines, compressed or not": kill_driver_of_lines,
    "the same, and another shard comes": kill_driver_of_growing_input,
    "SIGTERM": interrupt(signal.SIGTERM),
    "Ctrl-C": interrupt(signal.SIGINT),
    "a second run on the same output": start_twice,
    "kill -9 of the replica": kill_replica,
    "kill -9 of the read worker": kill_held("read", 4),
    "kill -9 of the write worker": kill_held("write", 6),
    "kill -9 of a node": lose_node,
    "kill -9 of the engine's process, vLLM": signal_engine(signal.SIGKILL),
    "an engine that hangs, vLLM": signal_engine(signal.SIGSTOP),
    "a shard that is cut off, then mended": cut_shard,
    "a row of 50 MB": read_a_long_row,
    "a disk that is full for 10 s": fill_disk,
    "S3 that is away for 30 s": lose_storage,
    "S3 that is slow, and 60 requests fail, cut or dropped": disturb_storage,
    "S3 whose token runs out, renewed after 10 s": expire_token,
}


def finish(process: subprocess.Popen[str], seconds: float = 300) -> str:
    """The output of a job that must come to a good end."""
    output = process.communicate(timeout=seconds)[0]
    assert process.returncode == 0, output
    return output


def check_whole(job: ScriptedJob) -> None:
    """Every row of the input is there once and unchanged, with the prediction it must have; nothing lies about."""
    # The empty shard's file sorts first: no reader may take its schema for nulls.
    out = pads.dataset(job.out, format="parquet").to_table()
    source = pads.dataset(job.corpus, format="parquet").to_table()
    assert out.num_rows == source.num_rows
    assert out.select(SCHEMA.names).sort_by("id").equals(source.sort_by("id"))
    assert predictions_of(out) == [predict_one(text) for text in out["text"].to_pylist()]
    assert list(job.out.glob(".*")) == []
    assert (job.out / "_SUCCESS").exists()


def count_rows(job: ScriptedJob) -> dict[str, int]:
    """Rows in, out, lost, doubled, and how many were predicted more than once."""
    source = pads.dataset(job.corpus, format="parquet").to_table(columns=["id"])["id"].to_pylist()
    ids = Counter(pads.dataset(job.out, format="parquet").to_table(columns=["id"])["id"].to_pylist())
    return {
        "rows in": len(source),
        "rows out": ids.total(),
        "lost": len(set(source) - set(ids)),
        "doubled": ids.total() - len(ids),
        "predicted again": sum(count - 1 for count in job.computed().values()),
    }


def main() -> None:
    """Print the table, of the faults named, or of all."""
    wanted = sys.argv[1:] or list(FAULTS)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        model.mkdir()
        save_random_model(model)
        for number, name in enumerate(wanted):
            job = ScriptedJob(Path(folder) / str(number), str(model))
            start = time.monotonic()
            FAULTS[name](job)
            seconds = round(time.monotonic() - start)
            counts: dict[str, Any] = count_rows(job) | {"seconds": seconds}
            if not job.computed():  # vLLM writes down nothing
                counts["predicted again"] = "?"
            if number == 0:
                print("| fault | " + " | ".join(counts) + " |\n|---|" + "---:|" * len(counts))
            print(
                f"| {name} | " + " | ".join(f"{c:,}" if isinstance(c, int) else c for c in counts.values()) + " |",
                flush=True,
            )


if __name__ == "__main__":
    main()
