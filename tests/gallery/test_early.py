"""Hands that are faster than the page: what they do is done when the scripts come, and stays out of
every address.
"""

import pytest

from safelight.gallery.pages.queue import LATELY
from tests.gallery.conftest import PASSPHRASE

pytestmark = pytest.mark.browser
LONG = 60_000  # milliseconds


class Held:
    """Requests of a page to an address that wait until they are let go."""

    def __init__(self, page, address):
        self._waiting, self._is_open = [], False
        page.route(address, self._take)

    def _take(self, route):
        if self._is_open:
            route.continue_()
        else:
            self._waiting.append(route)

    def let_go(self):
        self._is_open = True
        for route in self._waiting:
            route.continue_()


def test_a_passphrase_that_is_sent_before_the_scripts_opens_and_is_in_no_address(served, page):
    scripts = Held(page, "**/static/vendor/htmx.js")
    page.goto(served)
    page.get_by_label("Passphrase").fill(PASSPHRASE)
    page.get_by_role("button", name="Unlock", exact=True).click()
    assert "?" not in page.url
    scripts.let_go()
    page.get_by_role("button", name="Lock", exact=True).wait_for()
    assert "?" not in page.url


def test_no_form_goes_out_by_itself_even_without_our_script(served, chromium):
    context = chromium.new_context()
    page = context.new_page()
    page.route("**/static/early.js", lambda route: route.abort())
    page.route("**/static/vendor/htmx.js", lambda route: route.abort())
    page.goto(served)
    page.get_by_label("Passphrase").fill(PASSPHRASE)
    with page.expect_console_message(lambda said: "form-action" in said.text):
        page.keyboard.press("Enter")
    assert "?" not in page.url
    context.close()


def test_what_the_studio_was_asked_before_its_scripts_is_made(gallery, state):
    scripts = Held(gallery, "**/static/studio*.js")
    gallery.goto(f"{state.origin}/studio", wait_until="commit")
    gallery.get_by_label("Prompt", exact=True).fill("a quick fox")
    gallery.get_by_label("Steps", exact=True).fill("2")
    for _ in range(3):  # in a hurry: one picture all the same
        gallery.get_by_role("button", name="Make", exact=True).click()
    assert gallery.url == f"{state.origin}/studio"
    scripts.let_go()
    gallery.locator("#strip button").nth(LATELY).wait_for(timeout=LONG)
    gallery.locator("#run").wait_for(state="hidden", timeout=LONG)
    made = [record for record in state.vault.list() if "job" in record.metadata]
    assert [record.metadata["prompt"] for record in made] == ["a quick fox"]
    assert made[0].metadata["settings"]["steps"] == 2


def test_stars_and_buttons_before_the_scripts_are_not_lost(gallery, state):
    record_id = next(row.id for row in state.catalogue.window("rating:0", 0, 1))
    scripts = Held(gallery, "**/static/detail.js")
    gallery.goto(f"{state.origin}/detail/{record_id}", wait_until="commit")
    gallery.locator("#stars label").nth(2).click()
    scripts.let_go()
    gallery.get_by_text("1 picture: rated ★★★").wait_for()
    assert state.vault.get(record_id).metadata["rating"] == 3


def test_an_answer_between_press_and_release_does_not_eat_the_click(gallery, state):
    pair = ",".join(record.id for record in state.vault.list(limit=2))
    gallery.goto(f"{state.origin}/share/{pair}")
    gallery.get_by_text("Prompt and settings").click()
    gallery.get_by_text("Sampler: DPM++ 2M").wait_for()
    answers = Held(gallery, "**/share/preview")
    with gallery.expect_request("**/share/preview"):
        gallery.get_by_label("Take these words out").fill("AUTUMN")
    gallery.get_by_label("Next picture").hover()
    gallery.mouse.down()
    answers.let_go()
    gallery.get_by_text("green tree, light").wait_for()
    gallery.mouse.up()
    gallery.get_by_text("2 of 2").wait_for()


def test_one_escape_on_a_young_page_does_not_lock(gallery, state):
    gallery.add_init_script("performance.now = () => 100")  # milliseconds since it was opened
    gallery.goto(state.origin)
    gallery.locator("#cells:focus").wait_for()
    gallery.keyboard.press("Escape")
    assert not gallery.evaluate("document.documentElement.classList.contains('dark')")
    assert not state.is_locked
