"""Runs `export.worker` in processes of their own, relays progress, brings results or the error.

The child is told by its environment to stay off the network before it imports anything.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from queue import Queue
from threading import Thread
from typing import IO, Any, cast

from engine import errors as engine_errors
from export import errors

__all__ = ["OFFLINE", "run_job", "run_jobs"]

Progress = Callable[[str, float], None]
LINE_LIMIT = 1 << 20  # bytes of one message; a parity report has 4 KiB
OFFLINE = {
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "ONNXSCRIPT_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


def run_job(job: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
    """Do one job in a child and give its result. Raises as `run_jobs`."""
    return run_jobs([job], progress)[0]


def run_jobs(
    jobs: Sequence[Mapping[str, object]], progress: Progress
) -> list[Mapping[str, object]]:
    """Do jobs at the same time, a child for each, and give their results in order.

    progress: called here, in the caller's thread, with the stage of whichever child reports and the
    mean of all fractions. Raises the error that the first failing child reports: one of `export`,
    one of `engine` where its code met it, or OSError, as of a full disk. All children are ended
    when anything interrupts, an exception out of `progress` included.
    """
    messages: Queue[tuple[int, dict[str, Any]]] = Queue()
    processes: list[subprocess.Popen[str]] = []
    readers: list[Thread] = []
    try:
        for place, job in enumerate(jobs):
            processes.append(_start())
            arguments = (place, processes[place], job, messages)
            readers.append(Thread(target=_converse, args=arguments, daemon=True))
            readers[place].start()
        return _collect(len(jobs), messages, progress)
    finally:
        for process in processes:
            process.kill()
        for reader in readers:
            reader.join()
        for process in processes:
            with process:  # closes its pipes and waits
                pass


def _collect(
    count: int, messages: "Queue[tuple[int, dict[str, Any]]]", progress: Progress
) -> list[Mapping[str, object]]:
    results: dict[int, Mapping[str, object]] = {}
    fractions = [0.0] * count
    while len(results) < count:
        place, message = messages.get()
        if "result" in message:
            results[place] = message["result"]
            fractions[place] = 1.0
        elif message.get("error") == "OSError":
            text = f"{message['message']}: the export ended, and nothing of it was kept"
            raise OSError(message["errno"], text)
        elif "error" in message:
            kind = _error_class(message["error"])
            raise kind(message["message"], hint=message["hint"])
        else:
            fractions[place] = message["fraction"]
            progress(message["stage"], sum(fractions) / count)
    return [results[place] for place in range(count)]


def _start() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        # -P: the current folder is not searched for modules, whatever lies in it.
        [sys.executable, "-P", "-m", "export.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | OFFLINE,
        text=True,
        encoding="utf-8",
    )


def _converse(
    place: int,
    process: "subprocess.Popen[str]",
    job: Mapping[str, object],
    messages: "Queue[tuple[int, dict[str, Any]]]",
) -> None:
    """Tell a child its job and pass on what it says; its last message is a result or an error."""
    stdin, stdout = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
    try:
        stdin.write(json.dumps(dict(job)))
        stdin.close()
    except BrokenPipeError:
        pass  # it ended before it read: the status below says how
    while line := stdout.readline(LINE_LIMIT):
        try:
            message = json.loads(line)
        except ValueError:  # the end of one that was killed while it wrote
            continue
        messages.put((place, message))
        if "stage" not in message:
            return
    status = process.wait()
    text, hint = f"the export process ended with status {status} and said nothing", ""
    if status == -9:
        text = "the export process was killed"
        hint = "it probably ran out of memory: close programs"
    messages.put((place, {"error": "GraphError", "message": text, "hint": hint}))


def _error_class(name: str) -> type[errors.ExportError] | type[engine_errors.EngineError]:
    for home in (errors, engine_errors):
        if name in home.__all__ and name[0].isupper():
            return getattr(home, name)
    return errors.ExportError
