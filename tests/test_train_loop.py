"""Steps, schedule and reports of training, without Ray: what a resumed run sees is what it would have seen."""

import io
import json
import math
import os
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from trainings import plan_training

from ner_batch.errors import UserError
from ner_batch.jobs.progress import ProgressLine
from ner_batch.train import job, loop, packing
from ner_batch.train import model as models
from ner_batch.train.job import open_tracker, progress_text
from ner_batch.train.loop import TrainingState
from ner_batch.train.packing import Sample
from ner_batch.train.plan import MIN_STEPS, batch_layout, pack_epoch, training_schedule
from ner_batch.train.samples import draw_epoch
from ner_batch.train.settings import BaseModelConfig, LoraSettings, OptimiserConfig, RunConfig, TrainConfig

HERE = Path(__file__).parent
QLORA = Path(sys.prefix, "qlora")
PLACES = {"base": {"model": "m"}, "task": "t", "gold": {"train": "g"}, "output": "o"}


def rates(config, steps, done=0):
    """The learning rates of the steps that are left."""
    optimiser = loop.make_optimiser([torch.nn.Parameter(torch.ones(1))], config)
    scheduler = loop.make_scheduler(optimiser, config, steps, done)
    found = []
    for _ in range(done, steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return found


def test_the_rate_rises_linearly_and_falls_to_nothing_but_never_is_nothing():
    """A tenth of the steps to the peak; a run of one step learns too; a resumed run has the rates that were left."""
    config = OptimiserConfig(learning_rate=0.5, warmup=0.1)
    whole = rates(config, 50)
    assert whole[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert all(a > b for a, b in pairwise(whole[4:]))
    assert 0 < whole[-1] < 0.001
    assert rates(config, 1) == [0.5]
    for done in (1, 5, 30, 49):
        assert rates(config, 50, done) == whole[done:]


def test_a_resumed_run_sees_the_rows_that_were_left(tmp_path, random_model):
    """From every step of every epoch, and the rows of an epoch are those of all its samples."""
    plan = plan_training(
        tmp_path,
        random_model,
        dev=1,
        optimiser={"steps": 20, "batch_tokens": 600},
        packing={"kind": "greedy", "tokens": 600},
    )
    builder = plan.builder()

    def steps(state):
        for rows in loop.remaining_steps(plan, builder, state):
            state.step += 1
            yield rows, (state.epoch, state.epoch_step)

    whole = list(steps(TrainingState()))
    assert len(whole) == 20
    assert whole[-1][1][0] > 1
    first_epoch = [row for rows, (epoch, _) in whole if epoch == 0 for row in rows]
    assert first_epoch == plan.epoch_rows(builder, 0)
    for done in (1, 7, 19):
        epoch, epoch_step = whole[done - 1][1]
        state = TrainingState(step=done, epoch=epoch, epoch_step=epoch_step)
        assert list(steps(state)) == whole[done:]


def test_training_stops_when_dev_does_not_rise():
    """After `patience` evaluations without a better F1, counted from the last better one."""
    state = TrainingState()
    best = []
    for step, f1 in enumerate((0.1, 0.1, 0.2, 0.2, 0.15), 1):
        state.step = step
        best.append(loop.note_f1(state, f1, patience=2))
    assert best == [True, False, True, False, False]
    assert (state.best_f1, state.best_step, state.stopped_early) == (0.2, 3, True)
    assert not loop.note_f1(state, 0.1, patience=None)
    assert not state.stopped_early


@pytest.mark.parametrize(("steps", "evaluations", "checkpoints"), [(1, 1, 1), (4, 4, 4), (48, 4, 4), (1000, 5, 20)])
def test_every_run_is_evaluated_and_saved_several_times(steps, evaluations, checkpoints):
    """However short it is; what the config says wins."""
    schedule = training_schedule(TrainConfig.model_validate(PLACES | {"optimiser": {"steps": steps}}), 10)
    assert (steps // schedule.evaluate_every, steps // schedule.checkpoint_every) == (evaluations, checkpoints)
    sections = {"optimiser": {"epochs": 2}, "evaluation": {"every": 7}, "run": {"checkpoint_every": 3}}
    schedule = training_schedule(TrainConfig.model_validate(PLACES | sections), 10)
    assert (schedule.steps, schedule.evaluate_every, schedule.checkpoint_every) == (20, 7, 3)


@pytest.mark.parametrize("workers", [1, 2])
def test_under_auto_an_epoch_has_twenty_steps(tmp_path, random_model, workers):
    """Counted after packing: a shared prefix leaves fewer tokens, and would else leave fewer steps."""
    plan = plan_training(tmp_path, random_model, dev=1, train=120)
    config = plan.config.model_copy(update={"run": plan.config.run.model_copy(update={"workers": workers})})
    samples, _ = draw_epoch(plan.train, plan.builder(), config.demonstrations.shares, config.augmentation, "0-0")
    layout = batch_layout(config, samples)
    rows = pack_epoch(samples, layout, "0-0")
    assert layout.kind == "shared"
    assert len(rows) / layout.rows_per_step >= MIN_STEPS


def test_the_progress_line_tells_what_was_measured():
    """Before anything was, only the steps."""
    assert progress_text(3, 1500, {}, None) == "step 3 of 1,500"
    latest = {"step": 1000.0, "loss": 0.25, "f1": 0.5, "tokens_per_second": 12345.0, "learning_rate": 1e-4}
    assert progress_text(1001, 1500, latest, 61) == (
        "step 1,001 of 1,500  loss 0.250  dev F1 0.500  12,345 tokens/s  61 s left"
    )


class Measurements:
    """A queue that always has one."""

    def __init__(self, step=1, **measured):
        self.newest = step, measured

    def qsize(self):
        return 1

    def get_nowait_batch(self, count):
        return [self.newest] * count


class Values:
    """A tracker that keeps what it is to log."""

    def __init__(self):
        self.logged = []

    def log(self, values, _step):
        self.logged.append(values)

    def finish(self):
        pass


def test_reading_dev_is_progress_and_no_measurement():
    """The line tells how much is answered, without a time that knows nothing of it; no tracker logs it."""
    console, ended, tracker = Console(file=io.StringIO()), threading.Event(), Values()
    plan = SimpleNamespace(schedule=SimpleNamespace(steps=249))
    ended.set()
    with ProgressLine(console, every=0) as line:
        job.show_progress(plan, Measurements(249, answered=0.4), ended, tracker, console, line)
        job.show_progress(plan, Measurements(249, f1=0.5), ended, tracker, console, line)
    assert console.file.getvalue().splitlines() == [
        "step 249 of 249  reading dev: 40% answered",
        "step 249 of 249: dev F1 0.500",
        "step 249 of 249  dev F1 0.500",
    ]
    assert tracker.logged == [{"f1": 0.5}]


@pytest.mark.parametrize("stopped_by", ["tracker", "ctrl-c", "end"])
def test_one_thread_has_the_tracker_and_its_failure_stops_the_training(tmp_path, monkeypatch, stopped_by):
    """What a tracker raises comes out at once, Ctrl-C as it is; the thread has ended either way, the tracker with it."""
    threads = []

    class Tracker:
        def log(self, _values, _step):
            threads.append(threading.current_thread())
            if stopped_by == "tracker":
                raise ConnectionError("no route to the tracker")

        def finish(self):
            threads.append(threading.current_thread())

    def opened(*_):
        threads.append(threading.current_thread())
        return Tracker()

    monkeypatch.setattr(job, "open_tracker", opened)
    monkeypatch.setattr(job, "POLL_SECONDS", 0.01)
    plan = SimpleNamespace(
        schedule=SimpleNamespace(steps=9), config=SimpleNamespace(run=RunConfig(storage=str(tmp_path), name="run"))
    )
    reason = {"tracker": ConnectionError, "ctrl-c": KeyboardInterrupt, "end": LookupError}[stopped_by]
    started = threading.active_count()

    def train():
        with job.following_progress(plan, Measurements(loss=0.5), Console(file=io.StringIO())):
            if stopped_by == "tracker":
                threading.Event().wait(60)  # an interrupt ends it
            raise KeyboardInterrupt if stopped_by == "ctrl-c" else LookupError

    with pytest.raises(reason):
        train()
    assert threading.active_count() == started
    assert len(set(threads)) == 1
    assert threads[0] is not threading.main_thread()


def test_tensorboard_files_lie_in_the_folder(tmp_path):
    """And a run that goes on adds to them; with `none` nothing is kept."""
    for step in (1, 2):
        tracker = open_tracker("tensorboard", "run", tmp_path / "logs")
        tracker.log({"loss": 0.5}, step)
        tracker.finish()
    assert list((tmp_path / "logs").glob("events*"))
    assert open_tracker("none", "run", tmp_path) is None


@pytest.mark.skipif(not QLORA.is_dir(), reason="bitsandbytes is not beside the packages (make install puts it there)")
def test_an_adapter_trained_over_four_bits_serves_the_stored_base(random_model):
    """QLoRA, in a process of its own: where bitsandbytes can be imported PEFT does, 2 s and a warning for every other test."""
    paths = os.pathsep.join(map(str, (QLORA, HERE, HERE.parent)))
    command = [sys.executable, str(HERE / "four_bits.py"), random_model]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, last, stored = json.loads(done.stdout)
    assert last < first / 4
    assert stored < first / 2


def test_four_bits_without_bitsandbytes(monkeypatch, random_model):
    """The package is missing where the worker runs: one line says what to install there."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    quantized = BaseModelConfig(model=random_model, quantization="4bit")
    with pytest.raises(UserError, match=r"base.quantization=4bit needs bitsandbytes: pip install"):
        models.load(quantized, LoraSettings(r=8), torch.device("cpu"), seed=0)


def test_bfloat16_weights_are_trained_on_any_cpu(random_model, monkeypatch):
    """They take products in bfloat16, also where float32 is faster; float32 products are refused in the config."""
    monkeypatch.setattr(models, "cpu_computes_bfloat16", lambda: False)
    base, device = BaseModelConfig(model=random_model, dtype="bfloat16"), torch.device("cpu")
    model = models.load(base, LoraSettings(r=8), device, seed=0)
    row = packing.joined([Sample((5, 6, 7), (8, 9))], 0)
    loss = loop.backward(model, [row], mixed=models.computes_bfloat16(base, device))
    assert 0 < loss < math.inf
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.requires_grad)
    with pytest.raises(ValueError, match="float32 products take float32 weights"):
        BaseModelConfig(model=random_model, dtype="bfloat16", compute="float32")
