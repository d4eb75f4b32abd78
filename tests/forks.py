"""Runs the command line with streams as shells make them, case by case, in forks of one process that has the libraries imported.

`python forks.py` reads a JSON list of cases from stdin, {args, env, stdin, stdout}, and prints a list of [exit code, stdout, stderr].
``stdout``: pipe (the default), terminal, gone (a pipe nobody reads), closed, or a file's path; ``stdin``: text, or null for closed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback

import typer.main  # noqa: F401

import ner_batch.jobs.index
import ner_batch.train.settings  # noqa: F401


def read(descriptor: int) -> str:
    content = b""
    with contextlib.suppress(OSError):  # a terminal's other end has gone
        while piece := os.read(descriptor, 65536):
            content += piece
    os.close(descriptor)
    return content.decode()


def run(case: dict) -> list:
    kind = case.get("stdout", "pipe")
    out, writer = os.openpty() if kind == "terminal" else os.pipe()
    err, err_writer = os.pipe()
    words, words_writer = os.pipe()
    os.write(words_writer, (case.get("stdin") or "").encode())
    os.close(words_writer)
    pid = os.fork()
    if pid == 0:
        os.dup2(words, 0)
        os.dup2(writer, 1)
        os.dup2(err_writer, 2)
        os.closerange(3, 256)
        os.environ.update(case.get("env", {}))
        if kind == "closed":
            os.close(1)
            sys.stdout = None
        elif kind.startswith("/"):
            os.dup2(os.open(kind, os.O_WRONLY), 1)
        if "stdin" in case and case["stdin"] is None:
            os.close(0)
            sys.stdin = None
        try:
            import ner_batch.cli  # its consoles look at the streams when they are made

            ner_batch.cli.main(*case["args"])
        except SystemExit as end:
            code = end.code or 0
        except BaseException:  # noqa: BLE001 - a crash, told apart from exit code 1
            traceback.print_exc()
            code = 99
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    for descriptor in (writer, err_writer, words):
        os.close(descriptor)
    if kind == "gone":
        os.close(out)
    texts = ["" if kind == "gone" else read(out), read(err)]
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), *texts]


if __name__ == "__main__":
    print(json.dumps([run(case) for case in json.load(sys.stdin)]))
