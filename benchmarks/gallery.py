"""The gallery over 200,000 pictures: unlock to first screen, a page of scrolling, search, memory.

usage: python -m benchmarks.gallery [--size N] [--folder F] [--rounds N] [--out JSON]

One child process builds the vault, another serves it as `safelight gallery` does, and this one is
the browser: it asks for what the page's script asks for, over as many connections as a browser
opens. Records have real thumbnails, cut from pictures of `pocket`, and no pictures: nothing that
is measured opens one. The disk is not waited for while the vault is built; the system has most of
it in memory when it is used, as after a copy.
"""

from __future__ import annotations  # naming a class of the vault would load its libraries

import argparse
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlencode, urlsplit

from benchmarks.measure import RESULTS, summary
from benchmarks.vault_scale import RARE, file_system, keep, settings, table

__all__ = [
    "CONNECTIONS",
    "SCREEN",
    "WINDOW",
    "Connections",
    "main",
    "processor_seconds",
    "resident_mb",
    "show",
    "thumbnail_files",
]

BATCH = 16  # records a transaction
CUTS = 256  # different thumbnails
SIDE = 256  # pixels of one
YEARS = 3  # over which the pictures were made
PASSPHRASE = "the passphrase of a benchmark"  # noqa: S105 - of a vault of synthetic words
CONNECTIONS = 6  # that browsers open to one host
SCREEN = 48  # pictures of a screen, those made ready around it among them
WINDOW = 100  # rows that the page's script asks for at once
SEARCHES = (
    RARE,
    "bafi -hoka",
    "model:pocket rating:>=4 kale",
    "date:2025-03..2025-08",
    "is:favourite tag:seven",
    "seed:12 sort:rating",
    "size:512x512 gose numu",
)
_SCENARIO = "records with real thumbnails; a child process serves them, this one asks as a browser"


def build(home: Path, size: int) -> dict[str, Any]:
    """Make a vault of `size` pictures and give how long it took."""
    import vault

    os.fsync = lambda _: None  # nothing to lose here
    now = [time.time() - YEARS * 365 * 86_400.0]
    thumbnails = thumbnail_files()
    start = time.perf_counter()
    with vault.create(
        home / "vault",
        keystore=None,
        passphrase=vault.passphrase_secret(PASSPHRASE),
        confirm=lambda _: None,
        clock=lambda: now[0],
    ) as opened:
        for first in range(0, size, BATCH):
            numbers = range(first, min(first + BATCH, size))
            opened.add([_draft(number, thumbnails) for number in numbers])
            now[0] += YEARS * 365 * 86_400.0 * BATCH / size
    return {"seconds": round(time.perf_counter() - start, 1)}


def thumbnail_files() -> list[bytes]:
    from PIL import Image

    choose = Random(7)  # noqa: S311 - where to cut
    with Image.open(Path(__file__).parents[1] / "safelight/models/grid.webp") as image:
        grid = image.convert("RGB")
    found: list[bytes] = []
    for _ in range(CUTS):
        x, y = choose.randrange(grid.width - SIDE), choose.randrange(grid.height - SIDE)
        buffer = BytesIO()
        grid.crop((x, y, x + SIDE, y + SIDE)).save(buffer, "WEBP", quality=80, method=2)
        found.append(buffer.getvalue())
    return found


def _draft(number: int, thumbnails: Sequence[bytes]) -> Any:
    from vault import BlobDraft, Draft, Kind

    flat = settings(number)
    asked = ("seed", "width", "height", "steps", "sampler", "schedule", "guidance_scale")
    metadata = {
        "prompt": flat["prompt"],
        "negative_prompt": flat["negative_prompt"],
        "model": flat["model"],
        "settings": {name: flat[name] for name in asked},
        "backend": flat["backend"],
        "device": flat["device"],
        "precision": flat["precision"],
        "seconds": flat["seconds"],
        "tags": ["seven"] if number % 7 == 0 else [],
        "rating": number % 6,
        "favourite": number % 10 == 0,
        "disclosed": [],
    }
    picture = thumbnails[number % len(thumbnails)]
    blob = BlobDraft("thumbnail", Kind.THUMBNAIL, "image/webp", picture)
    return Draft(Kind.PICTURE, metadata, (blob,))


def serve(home: Path) -> None:
    """Serve the locked gallery until standard input ends; its address is the line it prints."""
    from safelight.gallery.address import Address, listen
    from safelight.gallery.gallery import Gallery
    from safelight.gallery.server import address_of, make_server
    from safelight.settings import load_settings

    state = Gallery(load_settings({"home": str(home)}, {}))
    address = Address(host="127.0.0.1")
    with listen(address) as listener:
        server = make_server(state, address, listener)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        sys.stdout.write(address_of(state) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
        server.should_exit = True
        thread.join()


class Connections:
    """As many open connections to one host as threads that ask, as a browser has."""

    def __init__(self, host: str, headers: Mapping[str, str]) -> None:
        """host: name and port. headers: sent with each request."""
        self.headers = dict(headers)
        self._host = host
        self._open = threading.local()
        self._pool = ThreadPoolExecutor(CONNECTIONS)

    def ask(self, path: str, fields: Mapping[str, Any] | None = None) -> tuple[Any, bytes]:
        """Ask once over this thread's connection; gives the headers and the body."""
        try:
            answer = self._answer(path, fields)
        except (http.client.RemoteDisconnected, ConnectionError):  # closed after a rest
            del self._open.connection
            answer = self._answer(path, fields)
        body = answer.read()
        if answer.status not in (200, 204) and path != "/unlock":
            raise RuntimeError(f"{path} was answered with {answer.status}")
        return answer.headers, body

    def pictures(self, paths: Sequence[str]) -> None:
        """Ask for the thumbnails of a screen, over all connections."""
        for _, body in self._pool.map(self.ask, paths):
            if body[8:12] != b"WEBP":
                raise RuntimeError("no thumbnail came back")

    def _answer(self, path: str, fields: Mapping[str, Any] | None) -> http.client.HTTPResponse:
        connection = getattr(self._open, "connection", None)
        if connection is None:
            connection = self._open.connection = http.client.HTTPConnection(self._host, timeout=60)
        headers = dict(self.headers)
        if fields is None:
            connection.request("GET", path, headers=headers)
        else:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            connection.request("POST", path, urlencode(fields).encode(), headers)  # one packet
        return connection.getresponse()


class Browser(Connections):
    """A session with the gallery."""

    def __init__(self, address: str) -> None:
        """Give the token of the address for a session."""
        parts = urlsplit(address)
        origin = {"Origin": f"http://{parts.netloc}", "Sec-Fetch-Site": "same-origin"}
        super().__init__(parts.netloc, origin)
        head, _ = self.ask("/session", {"token": parts.fragment.removeprefix("token=")})
        self.headers["Cookie"] = str(head["set-cookie"]).split(";", 1)[0]
        _, page = self.ask("/unlock")
        mark = b'name="safelight-csrf" content="'
        csrf = page[page.index(mark) + len(mark) :].split(b'"', 1)[0].decode()
        self.headers["X-Safelight-CSRF"] = csrf

    def window(self, query: str, start: int) -> list[dict[str, Any]]:
        """Ask for a window of rows."""
        fields = {"query": query, "start": start, "count": WINDOW}
        return json.loads(self.ask("/api/window", fields)[1])["rows"]

    def screen(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Ask for the thumbnails of the rows that a screen shows."""
        self.pictures([f"/thumbnail/{row['id']}" for row in rows[:SCREEN]])

    def search(self, query: str) -> dict[str, Any]:
        """Ask what a query finds."""
        return json.loads(self.ask("/api/search", {"query": query})[1])


def measure(browser: Browser, pid: int, size: int, rounds: int) -> dict[str, Any]:
    """Give seconds of each step, and the memory of the server after it."""
    seconds: dict[str, Any] = {}
    memory: dict[str, float] = {"locked": resident_mb(pid)}
    first, whole = [], []
    for number in range(rounds + 1):
        browser.ask("/lock", {})
        start = time.perf_counter()
        browser.ask("/unlock", {"passphrase": PASSPHRASE})
        browser.ask("/")
        while not browser.search("")["count"]:
            pass
        browser.screen(browser.window("", 0))
        first.append(time.perf_counter() - start)
        memory.setdefault("first screen", resident_mb(pid))
        if number < 2:  # reading everything takes the time of many first screens
            while json.loads(browser.ask("/api/version")[1])["loading"]:
                time.sleep(0.2)
            whole.append(time.perf_counter() - start)
    while json.loads(browser.ask("/api/version")[1])["loading"]:
        time.sleep(0.2)
    memory["everything read"] = resident_mb(pid)
    seconds["unlock to first screen"] = summary(first[1:])
    seconds["unlock to everything read"] = summary(whole)
    seconds |= _scroll(browser, pid, size, rounds)
    memory["scrolled"] = resident_mb(pid)
    for query in SEARCHES:
        seconds[f"search {query}"] = _search(browser, query, size, rounds)
    memory["searched"] = resident_mb(pid)
    return {
        "seconds": seconds,
        "resident_mb": memory,
        "peak_resident_mb": resident_mb(pid, "VmHWM"),
    }


def _scroll(browser: Browser, pid: int, size: int, rounds: int) -> dict[str, Any]:
    choose = Random(11)  # noqa: S311 - where to look
    rows, pictures, one, server = [], [], [], []
    for _ in range(20 * rounds):
        at = choose.randrange(max(1, size - WINDOW))
        start, before = time.perf_counter(), processor_seconds(pid)
        found = browser.window("", at)
        rows.append(time.perf_counter() - start)
        browser.screen(found)
        pictures.append(time.perf_counter() - start)
        server.append(processor_seconds(pid) - before)
        start = time.perf_counter()
        browser.ask(f"/thumbnail/{found[-1]['id']}")
        one.append(time.perf_counter() - start)
    return {
        "window of 100 rows": summary(rows),
        "one thumbnail": summary(one),
        "page: window and 48 thumbnails": summary(pictures),
        # The kernel counts in ticks of 10 ms: their mean over all pages, and no spread.
        "page: the server's own time": {
            "median": round(sum(server) / len(server), 6),
            "p90": round(sum(server) / len(server), 6),
            "runs": len(server),
        },
    }


def _search(browser: Browser, query: str, size: int, rounds: int) -> dict[str, Any]:
    """Time a search with its first window; a word that all have makes each round's text new."""
    times, count = [], 0
    for number in range(rounds):
        text = f"{query} -absent{number}"
        start = time.perf_counter()
        count = browser.search(text)["count"]
        browser.window(text, 0)
        times.append(time.perf_counter() - start)
    if not 0 <= count < size:
        raise RuntimeError(f"{query} found {count} of {size}")
    return {**summary(times), "found": count}


def processor_seconds(pid: int) -> float:
    """Give the seconds that a process computed so far, in its own code and for it in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int, name: str = "VmRSS") -> float:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


def show(results: Mapping[str, Any]) -> str:
    rows = {
        f"{name}, ms": [f"{figure['median'] * 1e3:.1f}", f"{figure['p90'] * 1e3:.1f}"]
        for name, figure in results["seconds"].items()
    }
    rows |= {
        f"memory, {name}, MB": [f"{value:.0f}", ""]
        for name, value in results["resident_mb"].items()
    }
    rows["memory at its peak, MB"] = [f"{results['peak_resident_mb']:.0f}", ""]
    return table(["median", "p90"], rows)


def main() -> None:
    """Build unless it is built, measure, write one JSON and print a table."""
    parser = argparse.ArgumentParser(prog="benchmarks.gallery")
    parser.add_argument("--size", type=int, default=200_000, help="pictures")
    parser.add_argument("--folder", type=Path, default=Path("gallery-work"), help="kept")
    parser.add_argument("--rounds", type=int, default=10, help="timed unlocks and searches")
    parser.add_argument("--out", type=Path, default=RESULTS / "gallery.json")
    parser.add_argument("--step", choices=["build", "serve"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    home = options.folder.absolute() / f"home-{options.size}"
    if options.step == "serve":
        serve(home)
        return
    if not (home / "built.json").exists():
        home.mkdir(parents=True)
        built = build(home, options.size)
        (home / "built.json").write_text(json.dumps(built), "utf-8")
    if options.step == "build":
        return
    command = [sys.executable, "-m", "benchmarks.gallery", "--step", "serve"]
    command += ["--folder", str(options.folder), "--size", str(options.size)]
    root = Path(__file__).parents[1]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=root, text=True, stdin=pipe, stdout=pipe) as server:
        if server.stdout is None:
            raise RuntimeError("the server has no output")
        browser = Browser(server.stdout.readline().strip())
        results = measure(browser, server.pid, options.size, options.rounds)
        server.communicate()
    results |= {
        "pictures": options.size,
        "file_system": file_system(home),
        "built": json.loads((home / "built.json").read_text("utf-8")),
    }
    path = keep(options.out, _SCENARIO, results)
    sys.stdout.write(f"{show(results)}\n{path}\n")


if __name__ == "__main__":
    main()
