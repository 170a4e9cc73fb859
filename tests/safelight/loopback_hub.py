"""A hub of models on this machine: the routes that a download uses, and its faults."""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

__all__ = ["COMMIT", "REPOSITORY", "LoopbackHub", "checkpoint_files", "serve"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/tiny-sd"


@dataclass
class LoopbackHub:
    """What the hub holds and how it misbehaves; `requests` is what it was asked.

    cut: name -> how many answers about it break after `cut_after` bytes. false_hash: names whose
    content is another than the listing says. redirect: where files are sent to. refuse: (status,
    error code) for everything.
    """

    files: dict[str, bytes]
    card: dict = field(default_factory=lambda: {"license": "creativeml-openrail-m"})
    url: str = ""
    cut: dict[str, int] = field(default_factory=dict)
    cut_after: int = 1000
    false_hash: set[str] = field(default_factory=set)
    redirect: str = ""
    redirect_listing: str = ""
    refuse: tuple[int, str] | None = None
    ignore_range: bool = False
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def asked(self, name: str) -> list[dict[str, str]]:
        """Give the headers of each request for this file."""
        return [headers for _, path, headers in self.requests if path.endswith(f"/{name}")]

    def listing(self) -> dict:
        """Give the repository as the hub's API does, with the hashes of its files."""
        return {
            "_id": "x",
            "id": REPOSITORY,
            "sha": COMMIT,
            "private": False,
            "gated": False,
            "tags": ["diffusers", "license:creativeml-openrail-m"],
            "cardData": self.card,
            "siblings": [self._entry(name, data) for name, data in self.files.items()],
        }

    def _entry(self, name: str, data: bytes) -> dict:
        entry = {"rfilename": name, "size": len(data)}
        if name.endswith((".safetensors", ".bin")):
            entry["lfs"] = {
                "sha256": hashlib.sha256(data).hexdigest(),
                "size": len(data),
                "pointerSize": 134,
            }
            data = b"the pointer of it"
        blob = b"blob %d\0" % len(data) + data
        return entry | {"blobId": hashlib.sha1(blob, usedforsecurity=False).hexdigest()}


def checkpoint_files() -> dict[str, bytes]:
    """Give a repository in diffusers' layout: plain and fp16 weights, pickles, a safety checker."""
    files = {
        "model_index.json": b'{"_class_name": "StableDiffusionPipeline"}',
        "README.md": b"a card",
        "LICENSE.md": b"a licence",
        ".gitattributes": b"*.safetensors filter=lfs",
        "scheduler/scheduler_config.json": b"{}",
        "tokenizer/vocab.json": b"{}",
        "tokenizer/merges.txt": b"",
        "tokenizer/tokenizer_config.json": b"{}",
        "tiny-pruned.safetensors": b"everything in one file" * 99,
        "tiny-pruned.ckpt": b"a pickle",
        "vae_decoder/model.onnx": b"no",
    }
    for folder, stem in (
        ("text_encoder", "model"),
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("safety_checker", "model"),
    ):
        files[f"{folder}/config.json"] = json.dumps({"part": folder}).encode()
        files[f"{folder}/{stem}.safetensors"] = f"{folder} in fp32 ".encode() * 3000
        files[f"{folder}/{stem}.fp16.safetensors"] = f"{folder} in fp16 ".encode() * 1500
        files[f"{folder}/pytorch_model.bin"] = b"a pickle"
    return files


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def log_message(self, *words):
        """Stay silent."""

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        hub = self.server.hub
        path = unquote(urlsplit(self.path).path)
        hub.requests.append(
            (self.command, path, {name.lower(): value for name, value in self.headers.items()})
        )
        if hub.refuse:
            status, code = hub.refuse
            return self._send(status, b"no", {"X-Error-Code": code} if code else {})
        if re.fullmatch(rf"/api/models/{REPOSITORY}/revision/(main|{COMMIT})", path):
            if hub.redirect_listing:
                return self._send(307, b"", {"Location": hub.redirect_listing + path})
            return self._send(200, json.dumps(hub.listing()).encode(), {})
        if path.startswith(f"/api/models/{REPOSITORY}/revision/"):
            return self._send(404, b"no", {"X-Error-Code": "RevisionNotFound"})
        found = re.fullmatch(rf"/{REPOSITORY}/resolve/{COMMIT}/(.+)", path)
        if found and found[1] in hub.files:
            return self._file(hub, found[1], path)
        return self._send(404, b"no", {"X-Error-Code": "RepoNotFound"})

    def _file(self, hub, name, path):
        data = hub.files[name]
        large = "lfs" in hub._entry(name, data)
        etag = hub._entry(name, data)["lfs"]["sha256"] if large else "some-etag"
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'}
        if large:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data))}
        if hub.redirect and large:
            return self._send(302, b"", headers | {"Location": hub.redirect + path})
        if name in hub.false_hash:
            data = bytes([data[0] ^ 1]) + data[1:]
        status, begin = 200, 0
        if (asked := self.headers.get("Range")) and not hub.ignore_range:
            status, begin = 206, int(asked.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        cut = hub.cut_after if hub.cut.get(name, 0) else None
        if cut is not None:
            hub.cut[name] -= 1
        return self._send(status, data[begin:], headers, cut=cut)

    def _send(self, status, body, headers, *, cut=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: LoopbackHub


@contextmanager
def serve(hub: LoopbackHub):
    """Serve the hub on a free port of 127.0.0.1 until the block ends."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.hub = hub
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
