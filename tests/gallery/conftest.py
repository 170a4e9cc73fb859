"""A gallery over a small real vault: in this process for most tests, behind a browser for some."""

import asyncio
import os
import secrets
import shutil
import subprocess
import threading
import time
from collections import deque
from pathlib import Path
from random import Random

import numpy as np
import pytest
from starlette.testclient import TestClient

from engine import GenerationRequest
from safelight.drafts import picture_blobs
from safelight.gallery.address import Address, listen, random_loopback
from safelight.gallery.app import create_app
from safelight.gallery.gallery import Gallery
from safelight.gallery.server import address_of, make_server
from safelight.records import asked_metadata
from safelight.settings import load_settings
from vault import Draft, Kind, PhraseUnlock, create, open_vault, passphrase_secret

PASSPHRASE = "correct horse battery staple"
HOST = "127.3.2.1:4455"
PROMPTS = ("red apple on a table", "blue house in the snow", "green tree, autumn light")
COUNT = 24
FAILED = pytest.StashKey[bool]()
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def picture_draft_of(number: int) -> Draft:
    """Give a picture record that looks like a generated one: seeded colours and settings."""
    choose = Random(number)  # noqa: S311 - colours, no secret
    ground = np.zeros((96, 128, 3), np.uint8)
    ground[:] = [choose.randrange(256) for _ in range(3)]
    ground[24:72, 32:96] = [choose.randrange(256) for _ in range(3)]
    request = GenerationRequest(
        prompt=PROMPTS[number % len(PROMPTS)],
        seed=number,
        width=128,
        height=96,
        steps=8,
        sampler="dpmpp_2m",
        schedule="karras",
        guidance_scale=4.0,
    )
    metadata = asked_metadata(request, "pocket") | {
        "model_hash": "0" * 64,
        "backend": "openvino",
        "device": "cpu",
        "precision": "fp32",
        "flagged": False,
        "tags": ["even"] if number % 2 == 0 else [],
        "rating": number % 6,
        "favourite": number % 5 == 0,
        "disclosed": [],
    }
    return Draft(kind=Kind.PICTURE, metadata=metadata, blobs=picture_blobs(ground))


@pytest.fixture(scope="session")
def sealed(tmp_path_factory) -> tuple[Path, str]:
    """Seal 24 pictures once, tests get copies; and give the phrase."""
    path, phrases = tmp_path_factory.mktemp("sealed") / "vault", list[str]()
    secret = passphrase_secret(PASSPHRASE)

    def confirm(phrase):
        phrases.append(phrase.text())

    with create(path, keystore=None, passphrase=secret, confirm=confirm) as vault:
        for first in range(0, COUNT, 12):
            vault.add([picture_draft_of(number) for number in range(first, first + 12)])
    return path, phrases[0]


@pytest.fixture
def settings(tmp_path, sealed):
    """Give the settings of a fresh home whose vault is a copy of the sealed one."""
    shutil.copytree(sealed[0], tmp_path / "home" / "vault")
    return load_settings({"home": str(tmp_path / "home")}, {})


@pytest.fixture
def state(settings):
    """Give the state of a locked gallery at a fixed address, and lock it in the end."""
    gallery = Gallery(settings)
    gallery.hosts, gallery.origin = frozenset({HOST}), f"http://{HOST}"
    yield gallery
    gallery.lock()


@pytest.fixture
def visitor(state):
    """Give a browser without a session, its requests as they come from our own page."""
    client = TestClient(
        create_app(state),
        base_url=f"http://{HOST}",
        headers={"origin": f"http://{HOST}", "sec-fetch-site": "same-origin"},
        follow_redirects=False,
    )
    with client:
        yield client


@pytest.fixture
def browser_session(state, visitor):
    """Give a browser with a session, before a locked vault."""
    session = state.sessions.exchange(state.sessions.token)
    visitor.cookies.set("safelight", session.key)
    visitor.headers["x-safelight-csrf"] = session.csrf
    return visitor


@pytest.fixture
def client(state, browser_session, sealed):
    """Give a browser with a session and the vault open, by the phrase, which is quick."""
    state.adopt(open_vault(state.settings.vault, PhraseUnlock(sealed[1])))
    return browser_session


class Late:
    """The gallery on a busy machine: every second answer is late, by up to so many seconds."""

    def __init__(self, app, seconds):
        self._app, self._seconds = app, seconds
        self._choose = Random(secrets.randbits(32))  # noqa: S311 - delays, no secret

    async def __call__(self, scope, receive, send):
        async def late(message):
            if message["type"] == "http.response.start" and self._choose.random() < 0.5:
                await asyncio.sleep(self._choose.random() * self._seconds)
            await send(message)

        await self._app(scope, receive, late if scope["type"] == "http" else send)


@pytest.fixture
def served(state):
    """Serve the gallery on a real socket, locked; gives the address to open.

    SAFELIGHT_TEST_DELAY: seconds by which answers are late, for `make test-late`.
    """
    address = Address(host=random_loopback())
    with listen(address) as listener:
        server = make_server(state, address, listener)
        if delay := float(os.environ.get("SAFELIGHT_TEST_DELAY", "0")):
            server.config.app = Late(server.config.app, delay)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield address_of(state)
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def as_another_user(monkeypatch):
    """Give a function that sends bytes to a host and port as another user, and gives what comes.

    Only root can be somebody else: for any other user this one is taken for another than ours.
    """
    from safelight.gallery import peers

    is_root = os.geteuid() == 0
    script = 'exec 3<>"/dev/tcp/$0/$1" && cat >&3 && cat <&3'

    def ask(host, port, data):
        user = {"user": 65534, "group": 65534, "extra_groups": []} if is_root else {}
        words = ["/bin/bash", "-c", script, host, str(port)]
        with monkeypatch.context() as patch:
            if not is_root:
                patch.setattr(peers, "trusted_uids", lambda: frozenset({0}))
            done = subprocess.run(
                words, check=False, input=data, capture_output=True, timeout=30, cwd="/", **user
            )
        assert b"refused" not in done.stderr  # it was there, and hung up
        return done.stdout

    return ask


@pytest.fixture(scope="session")
def chromium():
    """Start Debian's chromium once, without a way out."""
    if not Path(CHROMIUM).exists():
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed (Debian: chromium)")
        pytest.skip("chromium is not installed (Debian: chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Keep how a test went, for fixtures that say more of a failed one."""
    report = yield
    item.stash.setdefault(FAILED, False)
    item.stash[FAILED] |= report.failed
    return report


@pytest.fixture
def page(chromium, request):
    """Give a page of a fresh profile; a script's error or a refused resource fails the test.

    A test that fails says what the page asked for lately, and what stands on it.
    """
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    found = context.new_page()
    faults, began = [], time.monotonic()
    asked: deque[str] = deque(maxlen=40)
    found.on(
        "request",
        lambda sent: asked.append(
            f"{time.monotonic() - began:7.2f} {sent.method} {sent.resource_type} {sent.url}"
        ),
    )
    found.on("pageerror", lambda error: faults.append(str(error)))
    found.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    yield found
    if request.node.stash.get(FAILED, False):
        lines = (*asked, f"at {found.url}", found.inner_text("body"))
        print(*lines, sep="\n")  # noqa: T201 - pytest shows it below the failure
    context.close()
    # A locked or unknown answer is no fault of the page.
    assert [fault for fault in faults if "status of 4" not in fault] == []


@pytest.fixture
def gallery(served, page):
    """Give a page of a browser that unlocked the gallery and stands before the grid."""
    page.goto(served)
    page.get_by_label("Passphrase").fill(PASSPHRASE)
    page.get_by_role("button", name="Unlock", exact=True).click()
    page.get_by_role("button", name="Lock", exact=True).wait_for()
    return page
