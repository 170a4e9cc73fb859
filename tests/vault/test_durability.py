"""Power cuts: the vault's calls are recorded, replayed on a model of a disk, and cut everywhere.

A killed process loses nothing that it wrote, so only a model can tell whether everything was on
the medium in time. After every call of the trace the worst disks that the model allows are made,
and a vault is opened there: what was acknowledged is there, and the rest is whole or absent.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise, takewhile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.vault.recorder import Contents, Promise, act_at, contents, draft, outcomes, promises
from tests.vault.replay import Call, Disk, State, materialise, read_trace, states
from tests.vault.worker import make, open_vault
from vault.errors import NotFoundError, VaultError

ROOT = Path(__file__).parents[2]
ACTS = """
create add batch edit trash untrash delete discard purge rotate reopen
""".split()
EMPTY: State = {"v": None, "keys": None}


class Cut(NamedTuple):
    """One disk that a power cut may leave: after which call, what survived, what may be there."""

    number: int
    call: Call
    survived: str
    state: State
    promise: Promise

    def __str__(self) -> str:
        return f"{self.survived}, after call {self.number}: {self.call.kind} {self.call.path}"


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """Return recording_calls.c, compiled."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have a C compiler for the preloaded library")
        pytest.skip("needs a C compiler and Linux to record system calls")
    made = tmp_path_factory.mktemp("recorder") / "recording_calls.so"
    source = Path(__file__).with_name("recording_calls.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
    return made


def record(library: Path, place: Path, acts: Sequence[str], there: State) -> list[Call]:
    """Do acts in `place`, which holds what is `there`; return the trace."""
    place.mkdir()
    materialise(there, place)
    log = place.with_name(f"{place.name}.log")
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "RECORDER_ROOT": str(place),
        "RECORDER_LOG": str(log),
    }
    command = [sys.executable, "-m", "tests.vault.recorder", place / "v", place / "keys", *acts]
    subprocess.run([*map(str, command)], cwd=ROOT, env=environment, check=True, timeout=300)
    return read_trace(log)


@pytest.fixture(scope="module")
def recorded(library, tmp_path_factory) -> tuple[Path, list[Call]]:
    """Do all acts in a vault whose empty folder was there before; return where, and the trace."""
    place = tmp_path_factory.mktemp("trace") / "disk"
    return place, record(library, place, ACTS, EMPTY)


@pytest.fixture(scope="module")
def trace(recorded) -> list[Call]:
    return recorded[1]


def runs(trace: Sequence[Call], every: int) -> Iterator[bool]:
    """Say for each call whether to cut there: one in `every` of a run of like calls, and its last.

    Like calls write to one file, or make folders in one folder: those in between are subsets of
    what the random disks at the last one hold.
    """
    likes = [(c.kind, c.path if c.kind == "w" else os.path.dirname(c.path)) for c in trace]  # noqa: PTH120
    likes = [like if like[0] in "wm" else None for like in likes]
    length = 0
    for like, following in zip(likes, [*likes[1:], None], strict=True):
        length = length + 1 if like is not None and like == following else 0
        yield length % every == 0


def cuts(
    trace: Sequence[Call],
    seeds: int,
    *,
    there: State = EMPTY,
    held: Contents | None = None,
    since: int = 0,
    every: int = 8,
    any_names: bool = False,
) -> Iterator[Cut]:
    """Cut the power after every call, and yield each disk once.

    seeds: random disks a cut. held: what the vault on the disk `there` holds. since: the number of
    the first call to cut at. any_names: while the vault is made, too, unsynced changes of names in
    one folder survive in any choice; afterwards they always do.
    """
    disk = Disk(there, safe=["keys"])
    seen: set[int] = set()
    steps = zip(trace, promises(trace, held), runs(trace, every), strict=True)
    for number, (call, promise, wanted) in enumerate(steps):
        disk.apply(call)
        if number < since or not wanted:
            continue
        chances = range(number * 1000, number * 1000 + seeds)
        ordered = None in promise and not any_names
        for name, state in states(disk, chances, ordered=ordered):
            key = hash((str(promise), frozenset(state.items())))
            if key not in seen:
                seen.add(key)
                yield Cut(number, call, name, state, promise)


def losses(found: Iterable[Cut], folder: Path, *, tidy: bool = True) -> list[str]:
    """Open the vault after cuts; return what was wrong with the first three where something was."""
    folder.mkdir(exist_ok=True)
    wrongs: list[str] = []
    for cut in found:
        materialise(cut.state, folder)
        wrong = orphans(cut.state, cut.promise) if tidy else ""
        try:
            wrong = wrong or problem(folder / "v", folder / "keys", cut.promise)
        except (VaultError, OSError, sqlite3.Error) as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            wrongs.append(f"{cut}: {wrong}")
        if len(wrongs) == 3:
            break
    return wrongs


def orphans(state: State, promise: Promise) -> str:
    """Say whether files lie there that no record names, when no act is under way."""
    if len(promise) > 1 or promise[0] is None:
        return ""
    files = sum(data is not None for path, data in state.items() if path.startswith("v/blobs/"))
    wanted = sum(len(blobs) for _, _, _, blobs in promise[0].values())
    return "" if files == wanted else f"{files} sealed files, and the records name {wanted}"


def problem(path: Path, keys: Path, promise: Promise) -> str:
    """Return what is wrong with the vault that a power cut left, or nothing."""
    try:
        opened = open_vault(path, keys)
    except NotFoundError:
        if None not in promise:
            return "the vault is gone"
        if make(path, keys) != "made":
            return "create does not finish it"
        opened, promise = open_vault(path, keys), [{}]
    with opened:
        found = contents(opened)
        checks = [
            (bool(opened.warnings), "it warns of an old copy"),
            (found not in promise, f"it holds {sorted(found)}"),
            (any((path / "incoming").iterdir()), "incoming was not swept"),
            (len(list(keys.glob("*.kek.*"))) != 1, "a key is left over"),
        ]
        (record,) = opened.add([draft("after the cut")])
        opened.read(record.id, "picture")
    return next((text for is_wrong, text in checks if is_wrong), "")


def test_the_trace_holds_every_change(recorded):
    """Else the model would not be a model of the vault: its last disk is the real one."""
    place, trace = recorded
    disk = Disk(EMPTY, safe=["keys"])
    for call in trace:
        disk.apply(call)
    real = {
        str(path.relative_to(place)): None if path.is_dir() else path.read_bytes()
        for path in place.rglob("*")
    }
    assert dict(states(disk, ()))["everything"] == real


def test_a_power_cut_loses_nothing_that_was_acknowledged(trace, folder):
    assert losses(cuts(trace, seeds=3), folder) == []


@pytest.mark.slow
def test_many_power_cuts_lose_nothing_that_was_acknowledged(trace, folder):
    assert losses(cuts(trace, seeds=40, every=1), folder) == []


def repaired(library: Path, found: Iterable[Cut], tmp_path: Path, folder: Path) -> list[str]:
    """Cut the power again, everywhere, while what a cut left is repaired; return what was wrong."""
    wrongs: list[str] = []
    for number, cut in enumerate(found):
        act = "create" if None in cut.promise else "open"
        again = record(library, tmp_path / str(number), [act], cut.state)
        (outcome,) = outcomes(again)
        if outcome not in cut.promise:
            wrongs.append(f"{cut}: it holds {sorted(outcome)}")
        held = outcome if act == "open" else None  # no second cut may turn round what a reader saw
        second = losses(cuts(again, seeds=3, there=cut.state, held=held), folder, tidy=False)
        wrongs += [f"{cut}; then {wrong}" for wrong in second]
    return wrongs


def killed(found: Iterable[Cut]) -> list[Cut]:
    """Return the cuts at which every call had reached the disk: what a killed process leaves."""
    return [cut for cut in found if cut.survived == "everything"]


@pytest.mark.parametrize(("act", "following"), [("batch", "edit"), ("purge", "rotate")])
def test_a_second_power_cut_while_the_first_is_repaired(
    trace, library, tmp_path, folder, act, following
):
    """Before each unlink, a journal's too, and after it: then the next open has something to do."""
    start, end = act_at(trace, act), act_at(trace, following)
    found = takewhile(lambda cut: cut.number < end, cuts(trace, 0, since=start))
    pairs = [pair for pair in pairwise(killed(found)) if pair[1].call.kind == "u"]
    chosen = {cut.number: cut for pair in pairs for cut in pair}
    assert any(cut.state.get("v/index.sqlite-journal") for cut in chosen.values())
    assert repaired(library, chosen.values(), tmp_path, folder) == []


@pytest.mark.slow
def test_many_second_power_cuts(trace, library, tmp_path, folder):
    chosen = killed(cuts(trace, seeds=0))[::2]
    assert repaired(library, chosen, tmp_path, folder) == []


def after(kind: str, place: str) -> Callable[[Call, Call], bool]:
    """Return what finds the syncs right after a call of a kind below a path."""
    return lambda before, _: before.kind == kind and before.path.startswith(place)


@pytest.mark.parametrize(
    ("forgotten", "act"),
    [
        pytest.param(lambda _, call: call.at == 1, "add", id="folders"),
        pytest.param(lambda _, call: call.path == "v/blobs", "create", id="the 256 folders"),
        pytest.param(lambda _, call: call.path.startswith("v/incoming/"), "add", id="sealed files"),
        pytest.param(after("r", "v/incoming/"), "add", id="names of sealed files"),
        pytest.param(lambda _, call: call.path == "v/index.sqlite", "add", id="index"),
        pytest.param(lambda _, call: call.path.endswith("-journal"), "add", id="journal"),
        pytest.param(after("s", "v/index.sqlite-journal"), "add", id="the journal's name"),
        pytest.param(after("u", "v/index.sqlite-journal"), "add", id="the journal's going"),
        pytest.param(after("u", "v/blobs/"), "delete", id="deleted files' going"),
    ],
)
def test_a_sync_that_is_missing_is_found(trace, folder, forgotten, act):
    """The proof can fail: without one sort of the syncs from an act on, something is lost."""
    start, since = act_at(trace, act), max(act_at(trace, act), act_at(trace, "add"))
    kept = [
        call
        for number, call in enumerate(trace)
        if number < start or call.kind != "s" or not forgotten(trace[number - 1], call)
    ]
    assert len(kept) < len(trace)
    assert losses(cuts(kept, seeds=3, since=since), folder)


def test_the_vaults_own_folder_is_durable(library, tmp_path, folder):
    """Its name, too, that is: when `create` makes the folder, in one that was there before."""
    there: State = {"keys": None}
    trace = record(library, tmp_path / "disk", ["create", "add"], there)
    assert losses(cuts(trace, seeds=1, there=there), folder) == []


def test_a_vault_can_be_made_after_its_first_names_were_lost_in_any_order(trace, folder):
    made = [(call.kind, call.path) for call in trace].index(("c", "v/index.sqlite"))
    found = cuts(trace, seeds=30, since=made, any_names=True)
    assert losses(islice(found, 20), folder) == []


def disk_after(*calls: Call) -> dict[str, State]:
    """Return all disks that the model allows after calls in two folders with one file, by name."""
    disk = Disk({"a": None, "b": None, "a/old": b"1" * 1024})
    for call in calls:
        disk.apply(call)
    return {
        name: {path: data for path, data in state.items() if data is not None}
        for name, state in states(disk, range(200), ordered=False)
    }


OLD, NEW = b"1" * 1024, b"2" * 1024
MADE = Call("c", 2, 0, "a/new", b"")
WRITTEN = Call("w", 2, 0, "a/new", NEW)
SYNCED = Call("s", 2, 0, "a/new", b"")
MOVED = Call("r", 0, 0, "a/old", b"b/old")


def folder_synced(path: str) -> Call:
    return Call("s", 9, 1, path, b"")


@pytest.mark.parametrize(
    ("calls", "name", "expected"),
    [
        ([MADE, WRITTEN, SYNCED], "nothing unsynced", {"a/old": OLD}),
        ([MADE, WRITTEN, SYNCED], "names and no data", {"a/old": OLD, "a/new": NEW}),
        ([MADE, WRITTEN, folder_synced("a")], "nothing unsynced", {"a/old": OLD, "a/new": b""}),
        ([MADE, WRITTEN], "names and zeros", {"a/old": OLD, "a/new": bytes(1024)}),
        ([MOVED], "nothing unsynced", {"a/old": OLD}),
        ([MOVED, folder_synced("a")], "nothing unsynced", {"a/old": OLD}),
        ([MOVED, folder_synced("b")], "nothing unsynced", {"a/old": OLD, "b/old": OLD}),
        ([MOVED, folder_synced("b"), folder_synced("a")], "nothing unsynced", {"b/old": OLD}),
        ([MOVED], "everything", {"b/old": OLD}),
        ([Call("u", 0, 0, "a/old", b"")], "nothing unsynced", {"a/old": OLD}),
        ([Call("t", 1, 3, "a/old", b"")], "data and no names", {"a/old": b"111"}),
        ([Call("t", 1, 3, "a/old", b"")], "names and no data", {"a/old": OLD}),
    ],
)
def test_the_model_promises_what_its_rules_say(calls, name, expected):
    assert disk_after(*calls)[name] == expected


def test_random_disks_hold_every_choice_of_sectors_and_torn_ones():
    disks = disk_after(Call("w", 1, 0, "a/old", NEW))
    found = {disk["a/old"] for name, disk in disks.items() if name.startswith("random")}
    halves = [OLD[:512], NEW[:512]]
    whole_sectors = {first + second for first in halves for second in halves}
    assert whole_sectors < found
    assert all(len(content) == 1024 for content in found)
    with pytest.raises(ValueError, match="does not know fallocate"):
        disk_after(Call("?", 0, 0, "a/old", b"fallocate"))
