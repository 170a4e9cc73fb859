"""What stands before the guard: heads are bounded, and half a request holds nothing."""

import asyncio
import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from safelight.gallery.protocol import HEAD_BYTES
from safelight.gallery.reader import PictureReader
from vault import NotFoundError

HEAD = "HEAD /static/icon.png HTTP/1.1\r\nHost: {host}\r\n"


@pytest.fixture
def line(served):
    """Give an open connection to the gallery, and its host's name."""
    host = urlsplit(served).netloc
    name, _, port = host.partition(":")
    with socket.create_connection((name, int(port)), timeout=20) as connection:
        yield connection, host


def answer(connection, *parts):
    """Send parts and give the status line, or nothing when it hung up."""
    try:
        for part in parts:
            connection.sendall(part)
        return connection.recv(1 << 16).split(b"\r\n", 1)[0].decode()
    except (ConnectionResetError, BrokenPipeError):
        return ""


def wait_until_it_hangs_up(connection):
    """Read what is left to the end; a connection that stays open times out."""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while connection.recv(1 << 16):
            pass


def test_an_ordinary_head_passes_in_pieces(line):
    connection, host = line
    head = f"{HEAD.format(host=host)}Cookie: {'x' * 8000}\r\n\r\n".encode()
    pieces = [head[at : at + 1000] for at in range(0, len(head), 1000)]
    assert answer(connection, *pieces) == "HTTP/1.1 200 OK"
    assert answer(connection, HEAD.format(host=host).encode() + b"\r\n")  # and the next one


@pytest.mark.parametrize(
    "more",
    [
        f"X: {'x' * HEAD_BYTES}\r\n\r\n",
        "".join(f"X-{n}: {'x' * 100}\r\n" for n in range(300)) + "\r\n",
    ],
    ids=["one header", "many headers"],
)
def test_a_head_that_is_too_long_is_refused(line, more):
    connection, host = line
    said = answer(connection, HEAD.format(host=host).encode(), more.encode())
    assert said.endswith("400 Bad Request")


@pytest.mark.parametrize("start", ["GET /", "GET / HTTP/1.1\r\nX: "], ids=["address", "header"])
def test_a_line_without_an_end_is_cut_off(line, start):
    connection, _ = line
    # It may hang up before all of it is sent: then the answer is lost with what was not read.
    said = answer(connection, start.encode(), *[b"x" * 4096] * 200)
    assert said == "" or said.endswith("400 Bad Request")
    wait_until_it_hangs_up(connection)


@pytest.mark.parametrize(
    "bad",
    [
        "GET / HTTP/1.1\nHost: {host}\n\n",
        "GET / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : {host}\r\n\r\n",
        "not http at all\r\n\r\n",
    ],
)
def test_what_is_not_quite_http_is_refused(line, bad):
    connection, host = line
    assert answer(connection, bad.format(host=host).encode()).endswith("400 Bad Request")


def test_a_body_may_be_longer_than_a_head(line):
    connection, host = line
    head = f"POST /session HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n"
    body = b"token=" + b"x" * (2 * HEAD_BYTES)
    said = answer(connection, f"{head}Content-Length: {len(body)}\r\n\r\n".encode(), body)
    assert "415" in said  # read, and refused for what it says


def _run(coroutine):
    """Run it in a thread: where a browser was driven before, this one's loop is never done."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def test_pictures_asked_for_together_come_each_to_its_own(client, state):
    ids = [record.id for record in state.vault.list(limit=5)]

    async def ask():
        reader = PictureReader(state)
        asked = [reader.read(each, "thumbnail") for each in (*ids[:3], "0" * 32, *ids[3:])]
        return await asyncio.gather(*asked, return_exceptions=True)

    found = _run(ask())
    assert isinstance(found.pop(3), NotFoundError)
    assert found == [bytes(state.vault.read(each, "thumbnail")) for each in ids]


def test_who_goes_away_spoils_nothing_for_others(client, state):
    first, second = (record.id for record in state.vault.list(limit=2))

    async def ask():
        reader = PictureReader(state)
        gone = asyncio.ensure_future(reader.read(first, "picture"))
        stays = asyncio.ensure_future(reader.read(second, "picture"))
        await asyncio.sleep(0)
        gone.cancel()
        return await asyncio.wait_for(stays, 30)

    assert _run(ask()) == bytes(state.vault.read(second, "picture"))
