"""Kill a process that changes a vault, again and again.

usage: python -m tests.vault.kills FOLDER TIMES SIGNAL

A model follows what was acknowledged. After each death the vault is opened: what was acknowledged
is there, what was begun is whole or absent, and nothing that was deleted comes back. The children
are forks, so that most of the time goes into the changes. Prints how often it killed.
"""

# ruff: noqa: T201 - standard output is how it reports

import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.vault.worker import check, churn, make

Model = dict[str, tuple[int, bool]]  # id: (revision, in the trash), as acknowledged
Act = tuple[str, str]  # what was begun, and of which record
LONGEST_LIFE = 0.12  # seconds of a child after its first word: some dozens of changes


def churn_and_kill(path: Path, keys: Path, seed: int, how: int) -> list[str]:
    """Let a child churn, kill it, and return the lines that it had said."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.close(reading)
        os.dup2(writing, 1)
        try:
            churn(path, keys, seed)
        finally:
            os._exit(1)
    os.close(writing)
    first = os.read(reading, 1 << 16)
    time.sleep(random.Random(seed).uniform(0, LONGEST_LIFE))  # noqa: S311 - a schedule, no secret
    os.kill(child, how)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as stream:
        said = (first + stream.read()).decode()
    assert said, "the child ended before it did anything"
    whole, _, _ = said.rpartition("\n")  # a line that was cut off acknowledges nothing
    return whole.splitlines()


def follow(model: Model, lines: list[str]) -> Act | None:
    """Change the model by what was said; return what was begun and not acknowledged."""
    open_act = None
    for line in lines:
        match line.split():
            case ["add", *ids]:
                model |= dict.fromkeys(ids, (1, False))
            case ["begin", act, record_id]:
                open_act = (act, record_id)
            case [act, record_id, revision]:
                acknowledge(model, act, record_id, int(revision))
                open_act = None
            case _:
                raise AssertionError(line)
    return open_act


def acknowledge(model: Model, act: str, record_id: str, revision: int) -> None:
    """Change the model as an act that was acknowledged did."""
    if act == "delete":
        del model[record_id]
    elif act == "purge":
        for each in [each for each, (_, trashed) in model.items() if trashed]:
            del model[each]
    elif act in {"edit", "trash", "untrash"}:
        trashed = model[record_id][1] if act == "edit" else act == "trash"
        model[record_id] = (revision, trashed)


def compare(model: Model, now: Model, open_act: Act | None) -> None:
    """Raise AssertionError unless the vault holds `now`, given what was acknowledged and begun."""
    act, changed = open_act or ("", "")
    may_go = {changed} if act == "delete" else set()
    if act == "purge":
        may_go = {each for each, (_, trashed) in model.items() if trashed}
        assert may_go <= set(now) or not may_go & set(now), "half of a purge"
    assert set(model) - set(now) <= may_go, "an acknowledged record is gone"
    for record_id, is_now in now.items():
        if record_id in model and record_id != changed:
            assert is_now == model[record_id]
        elif record_id in model:
            assert is_now[0] - model[record_id][0] in {0, 1}


def main() -> None:
    """Kill as often as asked; raises AssertionError when anything was lost or brought back."""
    folder, times, how = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    path, keys = folder / "v", folder / "keys"
    make(path, keys)
    model: Model = {}
    gone: set[str] = set()
    ever = cut = 0
    for seed in range(times):
        before = set(model)
        open_act = follow(model, churn_and_kill(path, keys, seed, how))
        cut += open_act is not None
        found = check(path, keys, model)
        now = {i: (record.revision, record.trashed is not None) for i, record in found.items()}
        compare(model, now, open_act)
        assert not gone & set(now), "a deleted record came back"
        gone |= (before | set(model)) - set(now)
        ever += len(set(now) - before)
        files = sum(1 for _ in (path / "blobs").glob("*/*"))
        assert 0 <= files - len(now) <= 16 * (seed + 1)  # orphans of saves that were cut off
        assert len(list(keys.glob("*.kek.*"))) == 1, "a key of an earlier epoch is left"
        model = now
    assert ever > times
    print(times, "kills;", ever, "records;", len(gone), "deleted;", cut, "acts cut off")


if __name__ == "__main__":
    main()
