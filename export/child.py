"""Runs `export.worker` in a process of its own, relays its progress, brings its result or error.

The child is told by its environment to stay off the network before it imports anything.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import IO, cast

from engine import errors as engine_errors
from export import errors

__all__ = ["OFFLINE", "run_job"]

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
    """Do one job in a child and give its result. Raises the error that the child reports: one of
    `export`, or of `engine` where its code met it.

    The child is ended when anything interrupts, an exception out of `progress` included.
    """
    process = subprocess.Popen(
        # -P: the current folder is not searched for modules, whatever lies in it.
        [sys.executable, "-P", "-m", "export.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | OFFLINE,
        text=True,
        encoding="utf-8",
    )
    with process:
        try:
            return _converse(process, job, progress)
        finally:
            process.kill()


def _converse(
    process: "subprocess.Popen[str]", job: Mapping[str, object], progress: Progress
) -> Mapping[str, object]:
    stdin, stdout = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
    try:
        stdin.write(json.dumps(dict(job)))
        stdin.close()
    except BrokenPipeError:
        pass  # it ended before it read: the status below says how
    while line := stdout.readline(LINE_LIMIT):
        message = json.loads(line)
        if "result" in message:
            return message["result"]
        if "error" in message:
            kind = _error_class(message["error"])
            raise kind(message["message"], hint=message["hint"])
        progress(message["stage"], message["fraction"])
    status = process.wait()
    if status == -9:
        raise errors.GraphError(
            "the export process was killed", hint="it probably ran out of memory: close programs"
        )
    raise errors.GraphError(f"the export process ended with status {status} and said nothing")


def _error_class(name: str) -> type[errors.ExportError] | type[engine_errors.EngineError]:
    for home in (errors, engine_errors):
        if name in home.__all__ and name[0].isupper():
            return getattr(home, name)
    return errors.ExportError
