"""Draw pictures with pocket, seal them, and take pictures of the gallery's main pages.

usage: python -m tests.golden.make_gallery FOLDER (a new one; it keeps the vault)
"""

import sys
import threading
import time
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from engine import Pipeline, choose
from safelight.gallery.address import Address, listen, random_loopback
from safelight.gallery.gallery import Gallery
from safelight.gallery.server import address_of, make_server
from safelight.labels import favoured, label, rated, tagged
from safelight.settings import load_settings
from safelight.shelf import Shelf
from safelight.studio import Studio
from tests.gallery.conftest import ARGUMENTS, CHROMIUM, PASSPHRASE
from vault import PassphraseUnlock, Vault, create, open_vault, passphrase_secret

GOLDEN = Path(__file__).with_name("gallery")
PROMPTS = (
    "red apple",
    "blue cat face",
    "rocket",
    "octopus",
    "green tree",
    "yellow banana",
    "purple crystal ball",
    "fox face",
    "pizza",
    "orange balloon",
    "blue whale",
    "sailboat",
)
DAYS = (0, 3, 11, 12, 40, 75)  # after the first
FIRST = 1_780_000_000.0  # seconds since 1970
WIDE, PHONE = (1400, 900), (390, 844)


def draw(home: Path) -> None:
    """Make a vault of six days' pictures."""
    settings = load_settings({"home": str(home)}, {})
    bundle = Shelf(settings.models, settings.cache).open("pocket")
    pipeline = Pipeline(bundle, choose("cpu", "fp32", settings.cache))
    secret, now = passphrase_secret(PASSPHRASE), [FIRST]
    create(settings.vault, keystore=None, passphrase=secret, confirm=lambda _: None).close()
    unlock = PassphraseUnlock(secret)
    with open_vault(settings.vault, unlock, clock=lambda: now[0]) as vault:
        for number, day in enumerate(DAYS):
            now[0] = FIRST + day * 86_400
            words = PROMPTS[number % 3 :: 3] + PROMPTS[number % 2 :: 2]
            requests = [
                bundle.request(prompt=each, seed=number * 100 + n) for n, each in enumerate(words)
            ]
            for _ in Studio(pipeline, vault).run(requests, lambda: False):
                pass
        mark(vault)


def mark(vault: Vault) -> None:
    """Label some of them."""
    ids = [record.id for record in vault.list()]
    for change, some in (
        (rated(5), ids[::9]),
        (rated(4), ids[3::7]),
        (favoured(True), ids[::5]),
        (tagged(add=["print"]), ids[2::6]),
    ):
        for _ in label(vault, some, change):
            pass


def shoot(page: Page, name: str, size: tuple[int, int], scheme: str = "dark") -> None:
    """Keep what the page shows."""
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(color_scheme=scheme)
    page.wait_for_timeout(1200)
    with Image.open(BytesIO(page.screenshot())) as image:
        image.save(GOLDEN / f"{name}.webp", quality=82, method=6)


def visit(page: Page, state: Gallery) -> None:
    """Go through the main pages."""
    page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})
    page.emulate_media(color_scheme="dark")
    page.goto(address_of(state))
    page.get_by_label("Passphrase").wait_for()
    shoot(page, "unlock", WIDE)
    page.get_by_label("Passphrase").fill(PASSPHRASE)
    page.keyboard.press("Enter")
    page.locator(".cell img").first.wait_for()
    for key in ("ArrowRight", "x", "ArrowRight", "ArrowRight", "x"):
        page.keyboard.press(key)
    shoot(page, "grid", WIDE)
    page.keyboard.press("Escape")
    shoot(page, "grid-light", WIDE, "light")
    ids = [record.id for record in state.vault.list(limit=3)]
    for name, path in (
        ("detail", f"/detail/{ids[1]}"),
        ("compare", f"/compare/{ids[0]},{ids[2]}"),
        ("share", f"/share/{ids[0]}"),
        ("studio", f"/studio?from={ids[1]}&as=remix"),
        ("settings", "/settings"),
    ):
        page.goto(state.origin + path)
        shoot(page, name, WIDE)
    page.goto(state.origin)
    page.locator(".cell img").first.wait_for()
    shoot(page, "grid-phone", PHONE)


def main() -> None:
    """Make everything in a new folder."""
    home = Path(sys.argv[1])
    if not (home / "vault").exists():
        draw(home)
    state = Gallery(load_settings({"home": str(home)}, {}), note=sys.stderr.write)
    address = Address(host=random_loopback())
    with listen(address) as listener, sync_playwright() as playwright:
        server = make_server(state, address, listener)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            visit(browser.new_page(), state)
        finally:
            browser.close()
            server.should_exit = True
            thread.join()


if __name__ == "__main__":
    main()
