"""What the crash tests run in processes of their own: `python -m tests.vault.worker VERB ...`."""

# ruff: noqa: T201 - standard output is how the worker acknowledges

import ctypes
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

import vault
from tests.vault.file_keystore import FileKeyStore
from vault.errors import BadValueError, NoKeyError, NotFoundError, VaultError

MODES = {"before": 1, "after": 2, "refuse": 3}
SETTINGS = {"prompt": "a picture", "seed": 1}


def draft(name: str) -> vault.Draft:
    """Return a draft whose picture can be checked by its name."""
    blob = vault.BlobDraft("picture", vault.Kind.PICTURE, "image/png", name.encode() * 500)
    return vault.Draft(vault.Kind.PICTURE, {**SETTINGS, "name": name}, [blob])


def open_vault(path: Path, keys: Path) -> vault.Vault:
    return vault.open_vault(path, vault.KeyStoreUnlock(FileKeyStore(keys)))


def make(path: Path, keys: Path) -> str:
    """Make a vault, or find that another process made it."""
    try:
        vault.create(path, keystore=FileKeyStore(keys), confirm=lambda _: None).close()
    except BadValueError:
        return "exists"
    return "made"


def purge(path: Path, keys: Path, count: int) -> None:
    """Purge one record after the other, whatever others do."""
    with open_vault(path, keys) as opened:
        for _ in range(count):
            record = next(opened.list(), None)
            if record is not None:
                opened.purge([record.id])
                print(record.id, flush=True)


def scan(path: Path, keys: Path, count: int) -> None:
    """List and read everything again and again; a record that is gone meanwhile is no damage."""
    with open_vault(path, keys) as opened:
        for _ in range(count):
            for record in opened.list():
                with suppress(NotFoundError):
                    opened.read(record.id, "picture")


def add(path: Path, keys: Path, name: str, count: int) -> None:
    """Add records one by one and acknowledge each on standard output."""
    with open_vault(path, keys) as opened:
        for number in range(count):
            (record,) = opened.add([draft(f"{name}{number}")])
            print(record.id, flush=True)


CHANGES = ["add", "add", "add", "edit", "edit", "trash", "trash", "untrash", "delete"]
EPOCHS = ["purge", "rotate", "deep"]


def churn(path: Path, keys: Path, seed: int) -> None:
    """Change things for ever; print each act when it begins and when it is acknowledged."""
    choose = random.Random(seed)  # noqa: S311 - a schedule, no secret
    with open_vault(path, keys) as opened:
        ids = [record.id for trashed in (False, True) for record in opened.list(trashed=trashed)]
        while True:
            act = choose.choice(CHANGES + EPOCHS * (choose.random() < 0.3)) if ids else "add"
            if act == "add":
                names = [os.urandom(4).hex() for _ in range(choose.choice([1, 1, 2, 16]))]
                made = [record.id for record in opened.add([draft(name) for name in names])]
                ids += made
                print("add", *made, flush=True)
                continue
            chosen = "-" if act in EPOCHS else choose.choice(ids)
            print("begin", act, chosen, flush=True)
            print(act, chosen, change(opened, act, chosen, ids), flush=True)


def change(opened: vault.Vault, act: str, chosen: str, ids: list[str]) -> int:
    """Do an act of `churn` and return the record's new revision, or 0; keep `ids` true."""
    match act:
        case "edit":
            mark = os.urandom(4).hex()
            return opened.edit(chosen, lambda data: {**data, "m": mark}).revision
        case "delete":
            opened.delete([chosen])
            ids.remove(chosen)
        case "purge":
            gone = {record.id for record in opened.list(trashed=True)}
            opened.purge()
            ids[:] = [each for each in ids if each not in gone]
        case "rotate" | "deep":
            opened.keys.rotate(deep=act == "deep")
        case _:
            return getattr(opened, act)([chosen])[0].revision
    return 0


def act_on(opened: vault.Vault, what: str) -> None:
    """Do one of the acts whose every call may be the last."""
    match what:
        case "add":
            opened.add([draft("new")])
        case "delete":
            opened.delete([record.id for record in opened.list(trashed=True)])
        case "purge":
            opened.purge()
        case "rotate":
            opened.keys.rotate(deep=True)
        case _:
            raise SystemExit(2)


def check(path: Path, keys: Path, known: Container[str] = ()) -> dict[str, vault.Record]:
    """Open a vault, read the pictures that are not `known`, and return all records by id."""
    found: dict[str, vault.Record] = {}
    with open_vault(path, keys) as opened:
        for trashed in (False, True):
            for record in opened.list(trashed=trashed):
                found[record.id] = record
                if record.id in known:
                    continue
                data = opened.read(record.id, "picture")
                if data != record.metadata["name"].encode() * 500:
                    raise AssertionError("a picture is not the one that was added")
        if os.listdir(path / "incoming"):  # noqa: PTH208 - names are enough
            raise AssertionError("incoming was not swept")
    return found


def each_call(path: Path, keys: Path, mode: str, what: str) -> None:
    """Run an act again and again, dying at (or refusing) its first, second, ... last call."""
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    kept = (path.with_name("kept"), keys.with_name("kept-keys"))
    if what != "create":
        make(path, keys)
        add(path, keys, "before", 2)
        add(path, keys, "trashed", 2)
        with open_vault(path, keys) as opened:
            opened.trash([r.id for r in opened.list() if r.metadata["name"].startswith("trash")])
        path.rename(kept[0])
        keys.rename(kept[1])
    endings: Counter[str] = Counter()
    for number in range(1, 1000):
        if what != "create":
            shutil.copytree(kept[0], path)
            shutil.copytree(kept[1], keys)
        status = _fork(path, keys, (shim, number, MODES[mode]), what)
        endings[status] += 1
        if what == "create":
            make(path, keys)
        _check_call(path, keys, kept[0], (what, status, number))
        shutil.rmtree(path)
        shutil.rmtree(keys)
        if status == "past the end":
            print("calls", number - 1, *(f"{k}={v}" for k, v in sorted(endings.items())))
            return


def _check_call(path: Path, keys: Path, kept: Path, how: tuple[str, str, int]) -> None:
    """Raise AssertionError when a call that was the last, or refused, broke a promise."""
    what, status, number = how
    found = check(path, keys)
    names = {record.metadata["name"] for record in found.values()}
    if len(list(keys.glob("*.kek.*"))) != 1:
        raise AssertionError(f"more than one key after call {number}")
    if what == "create":
        return
    if not {"before0", "before1"} <= names:
        raise AssertionError(f"a record was lost at call {number}")
    if status == "done" and what == "add" and "new" not in names:
        raise AssertionError(f"an acknowledged record was lost at call {number}")
    trashed = names & {"trashed0", "trashed1"}
    if len(trashed) == 1:
        raise AssertionError(f"half of the trash is gone after call {number}")
    if trashed and status == "done" and what in {"delete", "purge"}:
        raise AssertionError(f"deleted records are still there after call {number}")
    if trashed or what not in {"delete", "purge"}:
        return
    if len(list((path / "blobs").glob("*/*"))) > len(found) + 2:  # + orphans of a refused save
        raise AssertionError(f"a deleted record's file is still there after call {number}")
    if what == "purge":
        try:
            open_vault(kept, keys).close()
        except NoKeyError:
            return
        raise AssertionError(f"the old folder opens after the purge, call {number}")


def log_calls(path: Path, keys: Path) -> str:
    """Add one record and return the letters of the calls that it made (failing_calls.c)."""
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    shim.shim_log.restype = ctypes.c_char_p
    make(path, keys)
    with open_vault(path, keys) as opened:
        opened.add([draft("first")])
        shim.shim_arm(-1, 0)
        opened.add([draft("second")])
        shim.shim_disarm()
    return shim.shim_log().decode()


def _fork(path: Path, keys: Path, trap: tuple[ctypes.CDLL, int, int], what: str) -> str:
    """Do the act in a child with the trap armed; say how it ended."""
    shim, number, mode = trap
    child = os.fork()
    if child == 0:
        os._exit(_act(path, keys, (shim, number, mode), what))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    endings = {0: "done", 3: "refused", 4: "past the end", 137: "died"}
    return endings[code]


def _act(path: Path, keys: Path, trap: tuple[ctypes.CDLL, int, int], what: str) -> int:
    shim, number, mode = trap
    refused = False
    if what == "create":
        shim.shim_arm(number, mode)
        try:
            make(path, keys)
        except (VaultError, OSError):
            refused = True
        counted = shim.shim_disarm()
    else:
        opened = open_vault(path, keys)
        shim.shim_arm(number, mode)
        try:
            act_on(opened, what)
        except VaultError:
            refused = True
        counted = shim.shim_disarm()
        opened.add([draft("after")])  # a refusal does not spoil the session
        opened.close()
    if refused:
        return 3
    return 4 if counted < number else 0


def main() -> None:
    """Run one verb."""
    # A background shell hands SIGINT down ignored, and Python then leaves it so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    verb, path, keys, *rest = sys.argv[1:]
    place = (Path(path), Path(keys))
    match verb:
        case "create":
            print(make(*place))
        case "add":
            add(*place, rest[0], int(rest[1]))
        case "purge":
            purge(*place, int(rest[0]))
        case "scan":
            scan(*place, int(rest[0]))
        case "churn":
            churn(*place, int(rest[0]))
        case "log-calls":
            print(log_calls(*place))
        case "each-call":
            each_call(*place, *rest)
        case _:
            raise SystemExit(2)


if __name__ == "__main__":
    main()
