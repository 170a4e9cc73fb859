"""The yardstick of `benchmarks.gallery`: as many pictures in a plaintext gallery from a package.

usage: python -m benchmarks.gallery_plain LENSLET [--size N] [--folder F] [--rounds N] [--out JSON]

LENSLET is the command of that package (PyPI: lenslet, a server for folders of pictures) in an
environment of its own. The folder has the thumbnails of `benchmarks.gallery` as files, a thousand
a sub folder, named by the words of their prompts, which is what its search looks at. It shows
them in the size that they have, and keeps what it made.
"""

from __future__ import annotations  # as benchmarks.gallery

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import urlopen

from benchmarks.gallery import (
    SCREEN,
    WINDOW,
    Connections,
    processor_seconds,
    resident_mb,
    show,
    thumbnail_files,
)
from benchmarks.measure import RESULTS, summary
from benchmarks.vault_scale import RARE, file_system, keep, settings

__all__ = ["main"]

A_FOLDER = 1000  # pictures
LONGEST = 120  # characters of a name
SEARCHES = (RARE, "bafi", "kale", "gose numu")
PATIENCE = 900.0  # seconds that the first start may take
_SCENARIO = "the same thumbnails as files, served by a plaintext gallery (PyPI: lenslet)"


def build(root: Path, size: int) -> None:
    """Write the pictures, unless they are there."""
    done = root.with_suffix(".built")
    if done.exists():
        return
    files = thumbnail_files()
    for number in range(size):
        folder = root / f"{number // A_FOLDER:04d}"
        if number % A_FOLDER == 0:
            folder.mkdir(parents=True)
        words = str(settings(number)["prompt"]).replace("/", " ")[:LONGEST]
        (folder / f"{number:06d} {words}.webp").write_bytes(files[number % len(files)])
    done.touch()


class Peer:
    """The other gallery, started on a folder; closing it ends its process."""

    def __init__(self, command: str, root: Path, port: int) -> None:
        """Start it and wait until it shows a first screen; `seconds` says how long that took."""
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [command, str(root), "-p", str(port), "--no-og-preview"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._health = f"http://127.0.0.1:{port}/health"
        self.connections = Connections(f"127.0.0.1:{port}", {})
        while not self._is_ready():
            if time.perf_counter() - start > PATIENCE or self.process.poll() is not None:
                raise RuntimeError("the other gallery did not start")
            time.sleep(0.05)
        self.screen(self.window(0))
        self.seconds = time.perf_counter() - start

    def _is_ready(self) -> bool:
        try:
            with urlopen(self._health, timeout=60) as answer:  # noqa: S310 - our own address
                return json.load(answer)["indexing"]["state"] == "ready"
        except (OSError, KeyError):
            return False

    def window(self, start: int) -> list[str]:
        """Give the paths of a window of the whole folder."""
        asked = {"path": "/", "recursive": "true", "offset": start, "limit": WINDOW}
        found = json.loads(self.connections.ask(f"/folders?{urlencode(asked)}")[1])
        return [item["path"] for item in found["items"]]

    def screen(self, paths: list[str]) -> None:
        """Ask for a screen of thumbnails."""
        self.connections.pictures([f"/thumb?path={quote(path)}" for path in paths[:SCREEN]])

    def search(self, words: str) -> int:
        """Give how many of the first window a search finds."""
        asked = urlencode({"q": words, "limit": WINDOW})
        return len(json.loads(self.connections.ask(f"/search?{asked}")[1])["items"])

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(60)


def measure(command: str, root: Path, size: int, rounds: int, port: int) -> dict[str, Any]:
    """Give seconds of each step, and the memory of the other gallery after it."""
    seconds: dict[str, Any] = {}
    first = Peer(command, root, port)
    seconds["first start to first screen"] = summary([first.seconds])
    first.close()
    starts = []
    for number in range(1, rounds):
        peer = Peer(command, root, port + number)
        starts.append(peer.seconds)
        peer.close()
    peer = Peer(command, root, port + rounds)
    starts.append(peer.seconds)
    seconds["start to first screen"] = summary(starts)
    pid = peer.process.pid
    memory = {"started": resident_mb(pid)}
    places = [Random(11).randrange(size - WINDOW) for _ in range(20 * rounds)]  # noqa: S311
    for name in ("thumbnails made", "thumbnails kept"):
        seconds |= _scroll(peer, places, name)
    memory["scrolled"] = resident_mb(pid)
    for words in SEARCHES:
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            peer.search(words)
            times.append(time.perf_counter() - start)
        seconds[f"search {words}"] = summary(times)
    memory["searched"] = resident_mb(pid)
    peak = resident_mb(pid, "VmHWM")
    peer.close()
    return {"seconds": seconds, "resident_mb": memory, "peak_resident_mb": peak}


def _scroll(peer: Peer, places: list[int], name: str) -> dict[str, Any]:
    pages, server = [], []
    for at in places:
        start, before = time.perf_counter(), processor_seconds(peer.process.pid)
        peer.screen(peer.window(at))
        pages.append(time.perf_counter() - start)
        server.append(processor_seconds(peer.process.pid) - before)
    mean = round(sum(server) / len(server), 6)  # the kernel counts in ticks of 10 ms
    return {
        f"page: window and {SCREEN} thumbnails, {name}": summary(pages),
        f"page: the server's own time, {name}": {"median": mean, "p90": mean, "runs": len(server)},
    }


def main() -> None:
    """Write the folder unless it is there, measure, write one JSON and print a table."""
    parser = argparse.ArgumentParser(prog="benchmarks.gallery_plain")
    parser.add_argument("command", help="the other gallery's command")
    parser.add_argument("--size", type=int, default=200_000, help="pictures")
    parser.add_argument("--folder", type=Path, default=Path("gallery-work"), help="kept")
    parser.add_argument("--rounds", type=int, default=5, help="timed starts and searches")
    parser.add_argument("--port", type=int, default=17_070, help="first of those that are used")
    parser.add_argument("--out", type=Path, default=RESULTS / "gallery-plain.json")
    options = parser.parse_args()
    root = options.folder.absolute() / f"plain-{options.size}"
    build(root, options.size)
    results = measure(options.command, root, options.size, options.rounds, options.port)
    version = subprocess.check_output([options.command, "--version"], text=True).strip()
    results |= {"pictures": options.size, "file_system": file_system(root), "package": version}
    path = keep(options.out, _SCENARIO, results)
    sys.stdout.write(f"{show(results)}\n{path}\n")


if __name__ == "__main__":
    main()
