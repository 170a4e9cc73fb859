"""A vault of 10 to 1,000,000 records: open, add, first page, search, purge, size and memory.

usage: python -m benchmarks.vault_scale [--sizes 10,1000] [--folder F] [--rounds N] [--out JSON]

Each size is built in one child process and used in another, whose peak memory is then that of
use alone. The records have no files (`benchmarks.vault_peers` writes files), and everything was
written a moment ago, so the system has it in memory.
"""

from __future__ import annotations  # naming a class of the vault would load its libraries

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import vault
from benchmarks.children import Child, module
from benchmarks.measure import RESULTS, interleave, save, summary
from benchmarks.residence import peak_memory

__all__ = [
    "FRAGMENT",
    "file_system",
    "hits",
    "in_process",
    "keep",
    "main",
    "settings",
    "table",
]

SIZES = "10,1000,100000,1000000"
BATCH = 16  # the most that the vault takes in one transaction
FIRST_SEARCH, PURGE_TENTH, TENTH = "search, first since opened", "purge of 10 %", 10
LIMIT = 7200.0  # seconds; a million records are built in half an hour
FIRST_PAGE = 50  # records that a gallery shows at once
SYLLABLES = ("ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo")
WORDS = 2000  # different words in all prompts, of three syllables each
RARE, FRAGMENT = "heliotropes", "liotrop"  # a word of one record in a thousand; what is searched
_SCENARIO = "records without files; a child process a size builds it, another uses it"


def settings(number: int) -> dict[str, Any]:
    """Give the metadata of record `number`: 400 bytes of JSON, a prompt of 12 words, seeded."""
    choose = Random(number)  # noqa: S311 - a text to search, no secret
    words = [_word(choose.randrange(WORDS)) for _ in range(12)]
    if number % 1000 == 7:
        words[3] = RARE
    return {
        "number": number,
        "prompt": " ".join(words),
        "negative_prompt": "blurred",
        "model": "pocket",
        "seed": choose.getrandbits(32),
        "width": 512,
        "height": 512,
        "steps": 20,
        "sampler": "dpmpp_2m",
        "schedule": "karras",
        "guidance_scale": 7.5,
        "backend": "openvino",
        "device": "cpu",
        "precision": "fp32",
        "seconds": {"text": 0.012, "denoise": 1.234, "decode": 0.345},
    }


def _word(number: int) -> str:
    base = len(SYLLABLES)
    return "".join(SYLLABLES[number // base**place % base] for place in range(3))


def hits(size: int) -> list[int]:
    """Give the numbers of the records below `size` that a search for FRAGMENT finds."""
    return list(range(7, size, 1000))


def file_system(folder: Path) -> str:
    """Give the type of the file system that a folder lies on, or "unknown"."""
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8").splitlines()
    except OSError:
        return "unknown"
    found = (0, "unknown")
    for line in lines:
        fields, _, rest = line.partition(" - ")
        mount = fields.split()[4]
        if len(mount) >= found[0] and folder.absolute().is_relative_to(mount):
            found = (len(mount), rest.split()[0])
    return found[1]


def keep(out: Path, scenario: str, results: Mapping[str, Any]) -> Path:
    """Write the results with the machine's facts to `out`, a name that ends in .json."""
    # An absolute name leaves `save`'s own folder, so that a trial run overwrites nothing kept.
    return save(str(out.absolute().with_suffix("")), scenario, results)


def table(columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Give lines of text: a heading, then a row each, right-aligned."""
    lines = {"": columns, **rows}
    left = max(map(len, lines))
    widths = [max(len(row[i]) for row in lines.values()) + 2 for i in range(len(columns))]
    return "\n".join(
        name.ljust(left) + "".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True))
        for name, row in lines.items()
    )


def build(folder: Path, size: int) -> dict[str, Any]:
    """Make a vault of `size` records in batches of 16; give its keys, hex, and how it went."""
    keystore = vault.MemoryKeyStore()
    seconds = 0.0
    with vault.create(folder, keystore=keystore, confirm=lambda _: None) as opened:
        for first in range(0, size, BATCH):
            drafts = _drafts(first, min(BATCH, size - first))
            start = time.perf_counter()
            opened.add(drafts)
            seconds += time.perf_counter() - start
            if first // BATCH % 2000 == 1999:
                _say(f"{size}: {first} records, {seconds:.0f} s")
    bytes_ = (folder / "index.sqlite").stat().st_size
    return {
        "entries": {name: value.hex() for name, value in keystore.entries.items()},
        "seconds": round(seconds, 3),
        "records a second": round(size / seconds, 1),
        "peak_rss_mb": _peak(),
        "index_bytes": bytes_,
        "index_bytes_a_record": round(bytes_ / size, 1),
    }


def use(
    folder: Path, size: int, rounds: int, entries: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Measure a vault of `size` records: yield each stage with its seconds a call as soon as it is
    done, and at the end the peak memory after each.
    """
    keystore = vault.MemoryKeyStore({name: bytes.fromhex(v) for name, v in entries.items()})
    unlock = vault.KeyStoreUnlock(keystore)
    times: dict[str, list[float]] = {"open": [], "first page of 50": [], "search": []}
    peak: dict[str, float] = {}
    newest = list(range(size - 1, max(-1, size - 1 - FIRST_PAGE), -1))
    for _ in range(rounds + 1):
        start = time.perf_counter()
        with vault.open_vault(folder, unlock) as opened:
            times["open"].append(time.perf_counter() - start)
            peak.setdefault("open", _peak())
            start = time.perf_counter()
            page = list(opened.list(limit=FIRST_PAGE))
            times["first page of 50"].append(time.perf_counter() - start)
            peak.setdefault("first page", _peak())
        _expect([r.metadata["number"] for r in page], newest)
    yield from _stages({name: times[name][1:] for name in ("open", "first page of 50")})
    with vault.open_vault(folder, unlock) as opened:
        for _ in range(rounds + 1):
            start = time.perf_counter()
            found = list(opened.search(FRAGMENT))
            times["search"].append(time.perf_counter() - start)
            _expect([r.metadata["number"] for r in found], hits(size)[::-1])
        peak["search"] = _peak()
        first, *others = times["search"]  # the first warms up
        yield from _stages({"search": others, FIRST_SEARCH: [first]})
        yield from _stages(_add(opened, size, 3 * rounds))
        peak["add"] = _peak()
        yield from _stages(_purge(opened, size, rounds))
        peak["purge"] = _peak()
    yield {"peak_rss_mb": peak}


def _stages(seconds: Mapping[str, list[float]]) -> Iterator[dict[str, Any]]:
    yield from ({"stage": name, "seconds": each} for name, each in seconds.items())


def _add(opened: vault.Vault, size: int, rounds: int) -> dict[str, list[float]]:
    """Time single records and batches of 16 in turn; seconds a record."""
    numbers = iter(range(size, sys.maxsize, BATCH))
    waiting = [_drafts(next(numbers), BATCH) for _ in range(2 * (rounds + 2))]
    times = interleave(
        {
            "alone": lambda: opened.add(waiting.pop()[:1]),
            "batch": lambda: opened.add(waiting.pop()),
        },
        rounds=rounds,
    )
    return {
        "add, alone": times["alone"],
        "add, a record of a batch of 16": [each / BATCH for each in times["batch"]],
    }


def _purge(opened: vault.Vault, size: int, rounds: int) -> dict[str, list[float]]:
    """Time the purge of one record, `rounds` times, and of a tenth spread over all, once."""
    opened.purge([record.id for record in opened.list(limit=1)])  # the first warms up
    every = [record.id for place, record in enumerate(opened.list()) if place % TENTH == 0]
    # The newest are those that `_add` left; the tenth of the vault itself comes after them.
    ones, tenth = every[:rounds], every[rounds:][: max(1, size // TENTH)]
    times: list[float] = []
    for ids in [[each] for each in ones] + [tenth]:
        start = time.perf_counter()
        opened.purge(ids)
        times.append(time.perf_counter() - start)
    return {"purge of one": times[:-1], PURGE_TENTH: times[-1:]}


def _drafts(first: int, count: int) -> list[vault.Draft]:
    numbers = range(first, first + count)
    return [vault.Draft(vault.Kind.PICTURE, settings(number)) for number in numbers]


def _expect(found: Sequence[int], wanted: Sequence[int]) -> None:
    if found != wanted:
        raise ValueError(f"{len(found)} records came back, {len(wanted)} were expected, or others")


def _peak() -> float:
    """Give the most memory that this process ever had, in MB."""
    return round(peak_memory() / 1e6, 1)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def in_process(
    question: Mapping[str, Any], stop: Callable[[], bool] = lambda: False
) -> Iterator[dict[str, Any]]:
    """Let a process of its own answer: `step` build, or use with `entries` and `rounds`; each with
    `folder` and `size`. Keys go through pipes.
    """
    with closing(
        Child((*module("benchmarks.vault_scale"), "--serve"), stop=stop, limit=LIMIT)
    ) as child:
        yield from (answer for answer in child.each(question) if "end" not in answer)


def serve() -> None:
    """Answer the question on standard input."""
    asked = json.loads(sys.stdin.readline())
    folder, size = Path(asked["folder"]), asked["size"]
    if asked["step"] == "build":
        answers = iter([build(folder, size)])
    else:
        answers = use(folder, size, asked["rounds"], asked["entries"])
    for answer in chain(answers, [{"end": True}]):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _measure(folder: Path, sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    results: dict[str, Any] = {"file_system": file_system(folder)}
    for size in sizes:
        place = folder / f"vault-{size}"
        where = {"folder": str(place), "size": size}
        (built,) = in_process({"step": "build", **where})
        entries = built.pop("entries")
        _say(f"{size}: built in {built['seconds']:.1f} s, {built['index_bytes'] / 1e6:.1f} MB")
        found: dict[str, Any] = {"seconds": {}}
        for each in in_process({"step": "use", **where, "rounds": rounds, "entries": entries}):
            if "stage" in each:
                found["seconds"][each["stage"]] = summary(each["seconds"])
                _say(f"{size}: {each['stage']}")
            else:
                found |= each
        found["seconds"][PURGE_TENTH]["records"] = max(1, size // TENTH)
        results[str(size)] = {**found, "build": built}
        shutil.rmtree(place)
    return results


def _show(results: Mapping[str, Any]) -> str:
    sizes = [name for name in results if name != "file_system"]
    names = list(results[sizes[0]]["seconds"])
    rows = {f"{name}, ms": [_cell(results[s]["seconds"][name]) for s in sizes] for name in names}
    rows["index, MB"] = [f"{results[s]['build']['index_bytes'] / 1e6:.2f}" for s in sizes]
    rows["peak memory, MB"] = [f"{max(results[s]['peak_rss_mb'].values()):.0f}" for s in sizes]
    return table([f"{int(size):,}" for size in sizes], rows)


def _cell(figure: Mapping[str, Any]) -> str:
    return f"{figure['median'] * 1e3:.2f}"


def _sizes(text: str) -> list[int]:
    sizes = [int(size) for size in text.split(",")]
    if min(sizes) < 1:
        raise ValueError
    return sizes


def main() -> None:
    """Measure all sizes and write one JSON; print a table of medians."""
    parser = argparse.ArgumentParser(prog="benchmarks.vault_scale")
    parser.add_argument("--sizes", type=_sizes, default=SIZES, help="records, with commas")
    parser.add_argument("--folder", type=Path, default=Path("vault-scale-work"), help="a new one")
    parser.add_argument("--rounds", type=int, default=10, help="timed calls of each kind")
    parser.add_argument("--out", type=Path, default=RESULTS / "vault-scale.json")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    folder = options.folder.absolute()
    folder.mkdir(parents=True)
    try:
        results = _measure(folder, options.sizes, options.rounds)
    finally:
        shutil.rmtree(folder)
    path = keep(options.out, _SCENARIO, results)
    sys.stdout.write(f"{_show(results)}\n{path}\n")


if __name__ == "__main__":
    main()
