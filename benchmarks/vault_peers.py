"""The same pictures in the vault, SQLCipher, gocryptfs, under `age`, and in the clear.

usage: python -m benchmarks.vault_peers [--pictures 1000] [--folder F] [--rounds N] [--out JSON]
           [--sqlcipher-python PYTHON]   (one that can import sqlcipher3)

A picture is 450 kB of noise with a thumbnail of 20 kB and 400 bytes of metadata. All are durable
when a write returns, in every store; every answer is compared with what was written. The stores
take turns, and the system still has in memory what they wrote. A list or search is measured
twice: by a store that did it before, and "fresh", by one that just opened (not timed). SQLCipher
then lacks its cache of opened pages, and the vault what its last search opened.

- vault: opened once, keys in memory; `benchmarks.vault_scale` measures opening.
- plain: the vault's own files, fsyncs, lock and SQLite transaction with bytes of equal size and
  no crypto: its code for folders and index, called with plaintext. Writes only.
- SQLCipher: one table; a raw key, so no key derivation is in the figures; synchronous=EXTRA, with
  a rollback journal as the vault has and with a write-ahead log. A process of its own times it.
- age: one X25519 recipient; picture, thumbnail and metadata are a file each and, as the command
  works, a process each. It has no index: a list or search opens every metadata file.
- gocryptfs: the same files without a process each, in a folder that it mounts by FUSE.
- raw: AES-256-GCM of `cryptography` in one piece, beside sealing and opening in memory.
"""

from __future__ import annotations  # the SQLCipher child has none of the vault's libraries

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.measure import RESULTS, interleave, summary
from benchmarks.vault_scale import file_system, keep, table
from benchmarks.vault_stores import (
    PICTURE,
    THUMBNAIL,
    Plain,
    Sealed,
    Sqlcipher,
    age_files,
    mounted_files,
    perform,
)

__all__ = ["main"]

LARGE = 1_500_000  # bytes of the picture that is sealed in memory
BATCH = 16  # the most that the vault takes in one transaction
READS = 200  # pictures read, chosen at random
LISTED = 1000  # records of a list, newest first
WARMUP = 2  # calls of each kind that are not kept
_SCENARIO = "pictures of 450 kB: durable write, read of one, list, search; the stores take turns"

Act = Callable[[str, int, int], float]  # (what, picture, how many) -> seconds


class Child:
    """SQLCipher in a child process, whose interpreter need not be ours. Its key is made there."""

    def __init__(self, python: str, folder: Path, journal: str) -> None:
        command = [python, "-m", "benchmarks.vault_peers", "--folder", str(folder)]
        root = Path(__file__).parents[1]
        self._process = subprocess.Popen(
            [*command, "--journal", journal],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about: dict[str, Any] = self._ask("")

    def act(self, what: str, number: int, count: int) -> float:
        """Have one act done there, and give its seconds as that process saw them."""
        return self._ask(json.dumps([what, number, count]) + "\n")["seconds"]

    def _ask(self, line: str) -> Any:
        asked, answered = self._process.stdin, self._process.stdout
        if asked is None or answered is None:
            raise ValueError("the child has no pipes")
        asked.write(line)
        asked.flush()
        line = answered.readline()
        if not line:
            raise ValueError("the SQLCipher child ended; its own message is above")
        return json.loads(line)

    def close(self) -> None:
        """End the child: it stops when there is nothing more to read."""
        self._process.communicate()


def serve(folder: Path, journal: str) -> None:
    """Do what the lines of standard input ask of SQLCipher and answer each with its seconds."""

    def answer(found: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()

    try:
        store = Sqlcipher(folder, journal)
    except ModuleNotFoundError as error:
        answer({"missing": f"the Python of --sqlcipher-python says: {error}"})
        return
    answer(store.about)
    with closing(store):
        for line in sys.stdin:
            answer({"seconds": perform(store, *json.loads(line))})


def open_stores(
    folder: Path, python: str | None, stack: ExitStack
) -> tuple[dict[str, Act], dict[str, Any]]:
    """Give what performs in each store that is here, and facts of all, the missing ones too."""
    own = {"sqlite": sqlite3.sqlite_version}
    stores: dict[str, Any] = {"vault": Sealed(folder / "vault"), "plain": Plain(folder / "plain")}
    about: dict[str, Any] = {"vault": own, "plain": own}
    age, keygen = shutil.which("age"), shutil.which("age-keygen")
    if age and keygen:
        version = subprocess.check_output([age, "--version"], text=True).strip()
        stores["age"], about["age"] = age_files(folder / "age", age, keygen), {"version": version}
    else:
        about["age"] = {"missing": "there are no commands `age` and `age-keygen`"}
    gocryptfs, unmount = shutil.which("gocryptfs"), shutil.which("fusermount3")
    try:
        if not gocryptfs or not unmount:
            raise FileNotFoundError("there are no commands `gocryptfs` and `fusermount3`")
        mounted = mounted_files(folder / "gocryptfs", gocryptfs, unmount)
        stores["gocryptfs"] = stack.enter_context(mounted)
        said = subprocess.check_output([gocryptfs, "-version"], text=True)
        about["gocryptfs"] = {"version": said.partition(";")[0].partition(" ")[2]}
    except (OSError, subprocess.CalledProcessError) as error:
        reason = "FUSE mounts nothing here" if gocryptfs and unmount else str(error)
        about["gocryptfs"] = {"missing": reason}
    acts: dict[str, Act] = {}
    for name, store in stores.items():
        acts[name] = partial(perform, stack.enter_context(closing(store)))
    for name, journal in (("SQLCipher", "DELETE"), ("SQLCipher, WAL", "WAL")):
        if python is None or shutil.which(python) is None:
            about[name] = {"missing": "--sqlcipher-python was not given, or is no program"}
            continue
        child = stack.enter_context(closing(Child(python, folder / name, journal)))
        about[name] = child.about
        if "missing" not in child.about:
            acts[name] = child.act
    return acts, about


def measure(acts: Mapping[str, Act], pictures: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Give a summary for each act and store, seconds a picture (list and search: a call)."""
    alone = pictures - pictures // 2 // BATCH * BATCH
    choose = Random(0)  # noqa: S311 - which pictures are read, no secret
    listing = ("list", pictures - 1, min(LISTED, pictures))
    calls = rounds + WARMUP
    jobs = {
        "write alone": [("write", number, 1) for number in range(alone)],
        "write by 16": [("write", number, BATCH) for number in range(alone, pictures, BATCH)],
        "read one": [("read", n, 1) for n in choose.sample(range(pictures), min(READS, pictures))],
        "list": [listing] * calls,
        "list, fresh": [("list, fresh", *listing[1:])] * calls,
        "search": [("search", 0, pictures)] * calls,
        "search, fresh": [("search, fresh", 0, pictures)] * calls,
    }
    results: dict[str, dict[str, Any]] = {}
    for name, job in jobs.items():
        sys.stderr.write(f"{name}: {len(job)} rounds\n")
        os.sync()
        turns = [store for store in acts if store != "plain" or name.startswith("write")]
        times: dict[str, list[float]] = {store: [] for store in turns}
        for what, number, count in job:
            turns = turns[1:] + turns[:1]
            for store in turns:
                took = acts[store](what, number, count)
                times[store].append(took / count if what == "write" else took)
        kept = {store: each[WARMUP:] or each for store, each in times.items()}
        results[name] = {store: summary(each) for store, each in kept.items()}
    return results


def sealing(rounds: int) -> dict[str, Any]:
    """Seal and open 1.5 MB in memory beside raw AES-256-GCM; shares are of its throughput.

    Sealing opens its result again before it returns; the second share lets the raw cipher do so.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from vault.frame import Framed, strip_frame
    from vault.sealing import open_blob, seal_blob

    picture, key, context, nonce = (os.urandom(size) for size in (LARGE, 32, 59, 12))
    cipher = AESGCM(key)
    raw = cipher.encrypt(nonce, picture, None)
    sealed = seal_blob(key, context, Framed(picture))
    calls: dict[str, Callable[[], object]] = {
        "raw encrypt": lambda: cipher.encrypt(os.urandom(12), picture, None),
        "raw decrypt": lambda: cipher.decrypt(nonce, raw, None),
        "seal": lambda: seal_blob(key, context, Framed(picture)),
        "open": lambda: strip_frame(open_blob(key, context, sealed)),
    }
    times = {name: summary(each) for name, each in interleave(calls, rounds=rounds).items()}
    encrypt, decrypt, seal, open_ = (times[name]["median"] for name in calls)
    return {
        "seconds": times,
        "share of raw, seal + open": round((encrypt + decrypt) / (seal + open_), 3),
        "the same, raw with the check": round((encrypt + 2 * decrypt) / (seal + open_), 3),
    }


def _ratios(seconds: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    return {
        name: {
            f"vault / {store}": round(stores["vault"]["median"] / each["median"], 4)
            for store, each in stores.items()
            if store != "vault"
        }
        for name, stores in seconds.items()
    }


def _show(results: Mapping[str, Any]) -> str:
    """Give a table of medians and their coefficients of variation."""
    stores = list(results["stores"])
    rows: dict[str, list[str]] = {}
    for name, row in results["seconds"].items():
        found = [row.get(store) for store in stores]
        rows[f"{name}, ms"] = [
            f"{each['median'] * 1e3:.2f} ±{each['variation']:.0%}" if each else "-"
            for each in found
        ]
    missing = [
        f"{store}: missing, {about['missing']}\n"
        for store, about in results["stores"].items()
        if "missing" in about
    ]
    shares = {name: value for name, value in results["sealing 1.5 MB"].items() if "raw" in name}
    lines = [f"1.5 MB in memory, {name}: {value:.0%}\n" for name, value in shares.items()]
    return "".join([table(stores, rows), "\n", *missing, *lines])


def _pictures(text: str) -> int:
    if int(text) < 2 * BATCH:
        raise argparse.ArgumentTypeError(f"{2 * BATCH} or more, got {text}")
    return int(text)


def main() -> None:
    """Measure all stores and write one JSON; print a table."""
    parser = argparse.ArgumentParser(prog="benchmarks.vault_peers")
    parser.add_argument("--pictures", type=_pictures, default=1000)
    parser.add_argument("--folder", type=Path, default=Path("vault-peers-work"), help="a new one")
    parser.add_argument("--rounds", type=int, default=10, help="lists and searches of each store")
    parser.add_argument("--sqlcipher-python", help="an interpreter that can import sqlcipher3")
    parser.add_argument("--out", type=Path, default=RESULTS / "vault-peers.json")
    parser.add_argument("--journal", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.journal:
        serve(options.folder, options.journal)
        return
    folder = options.folder.absolute()
    folder.mkdir(parents=True)
    try:
        with ExitStack() as stack:
            acts, about = open_stores(folder, options.sqlcipher_python, stack)
            seconds = measure(acts, options.pictures, options.rounds)
        results = {
            "file_system": file_system(folder),
            "pictures": options.pictures,
            "bytes": {"picture": PICTURE, "thumbnail": THUMBNAIL},
            "stores": about,
            "seconds": seconds,
            "ratios": _ratios(seconds),
            "sealing 1.5 MB": sealing(10 * options.rounds),
        }
    finally:
        shutil.rmtree(folder)
    path = keep(options.out, _SCENARIO, results)
    sys.stdout.write(f"{_show(results)}{path}\n")


if __name__ == "__main__":
    main()
