"""A session with a canary in it, and then a search for the canary in all that was written.

The real command, a browser with a profile on the disk: first run, a picture made in the studio,
looked at, searched for, locked; the browser is stopped as a person stops it.
"""

import io
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from safelight.settings import load_settings
from tests.e2e.command import Home
from tests.e2e.hunt import forms, inflated
from tests.gallery.conftest import ARGUMENTS, CHROMIUM
from vault import PassphraseUnlock, open_vault, passphrase_secret

pytestmark = pytest.mark.browser
CANARY = "canary zebra qx7f3a91 umbrella"
NEGATIVE = "kd82hs0f negative"
SECRET = "w0mbat passphrase 5521"
NEEDLES = (CANARY, "qx7f3a91", "kd82hs0f", SECRET, "w0mbat")


@pytest.fixture(scope="module")
def session(chromium, tmp_path_factory):
    """Have the session; gives its folder, what the command said, and the picture's bytes."""
    root = tmp_path_factory.mktemp("session")
    (root / "home" / "user").mkdir(parents=True)
    home = Home(root / "home")
    began = time.time()
    process = home.start("gallery", "--no-browser", stdout=subprocess.PIPE)
    try:
        address = process.stdout.readline().decode().strip()
        phrase = _visit(chromium, root / "profile", address)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            home.kill(process)
    assert process.returncode == 0, said
    settings = load_settings({"home": str(home.path)}, {})
    unlock = PassphraseUnlock(passphrase_secret(SECRET))
    with open_vault(settings.vault, unlock) as vault:
        record = next(vault.list(limit=1))
        assert record.metadata["prompt"] == CANARY
        png = bytes(vault.read(record.id, "picture"))
    return root, (out + said).decode(), png, phrase, began


def _visit(chromium, profile, address):
    """Do what a person does, and leave the browser by its own way."""
    context = chromium.browser_type.launch_persistent_context(
        profile, executable_path=CHROMIUM, args=[*ARGUMENTS, "--disable-extensions"]
    )
    page = context.new_page()
    page.goto(address)
    page.locator("#passphrase").fill(SECRET)
    page.locator("#again").fill(SECRET)
    page.get_by_role("button", name="Use this passphrase").click()
    phrase = page.locator(".phrase code").inner_text()
    page.get_by_label("Type it back to go on").fill(phrase)
    page.get_by_role("button", name="Make the vault").click()
    page.get_by_text("Nothing here yet").wait_for()
    page.get_by_role("link", name="Studio", exact=True).click()
    page.get_by_label("Prompt", exact=True).fill(CANARY)
    page.get_by_label("Leave out").fill(NEGATIVE)
    page.get_by_role("button", name="Make", exact=True).click()
    page.locator("#strip button").first.wait_for(timeout=120_000)
    page.goto(page.url.partition("/studio")[0] + "/")
    page.locator(".cell img").first.wait_for(timeout=120_000)
    page.keyboard.press("/")
    page.keyboard.type("zebra qx7f3a91")
    page.keyboard.press("Enter")
    page.get_by_text("1 picture", exact=True).wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url("**/detail/*")
    page.get_by_text(CANARY).first.wait_for()
    page.go_back()
    page.locator(".cell img").first.wait_for()
    page.goto(page.url + "studio")
    page.get_by_label("Prompt", exact=True).fill(CANARY)  # left typed and not made
    page.wait_for_timeout(3000)  # what a browser writes now and then
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.get_by_role("heading", name="Locked").wait_for()
    context.close()
    return phrase


def _written(root, began):
    """Give every file that the session made, and every other that was changed meanwhile."""
    yield from (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    places = ("/tmp", "/var", "/dev/shm", os.path.expanduser("~"), "/run")  # noqa: S108, PTH111
    for top in places:
        for folder, _, names in os.walk(top):
            if folder.startswith(str(root)):
                continue
            for name in names:
                if name.startswith("test_canary"):  # this text, in any checkout
                    continue
                path = os.path.join(folder, name)  # noqa: PTH118 - many files
                try:
                    state = os.lstat(path)
                except OSError:
                    continue
                is_file = (state.st_mode & 0o170000) == 0o100000
                if is_file and began <= state.st_mtime and state.st_size < 64_000_000:
                    yield type(root)(path)


def test_no_word_and_no_pixel_is_written_anywhere(session):
    root, _, png, phrase, began = session
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    stretches = [row.tobytes()[start : start + 120] for row in pixels for start in (0, 120, 240)]
    richest = max(stretches, key=lambda stretch: len(set(stretch)))
    assert len(set(richest)) > 20
    needles = [each.encode() for each in (*NEEDLES, phrase)]
    wanted = [form for needle in (*needles, richest) for form in forms(needle).values()]
    files = 0
    for path in _written(root, began):
        try:
            data = path.read_bytes()
        except OSError:  # another program's, gone meanwhile
            continue
        files += 1
        ours = path.is_relative_to(root)
        if not ours and not any(needle in data for needle in needles):
            continue
        for stream in (data, *inflated(data)):
            assert [form for form in wanted if form in stream] == [], path
        assert png[100:160] not in data, path
    assert files > 30  # vault and profile


def test_nothing_is_said(session):
    _, said, _, phrase, _ = session
    assert not re.search("qx7f3a91|kd82hs0f|w0mbat|Traceback", said)
    assert phrase not in said
    assert "vault is locked" in said


def test_the_browsers_history_holds_addresses_without_words(session):
    root = session[0]
    history = root / "profile" / "Default" / "History"
    data = history.read_bytes()
    assert b"/detail/" in data  # it was written, so that its silence means something
    assert b"zebra" not in data
