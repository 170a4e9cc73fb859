"""axe-core finds no serious fault on any page, dark and light, wide and narrow."""

import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = pytest.mark.browser
GRAVE = {"serious", "critical"}
# Every page that a person goes to; ID stands for a picture's.
PAGES = (
    "/",
    "/studio",
    "/detail/ID",
    "/compare/ID,ID2",
    "/share/ID",
    "/albums",
    "/sheet",
    "/slides",
    "/trash",
    "/import",
    "/settings",
)


def faults(page):
    """Give what axe-core finds that is serious: rule, where, and why."""
    found = Axe().run(page).response["violations"]
    return [
        (each["id"], node["target"], node["failureSummary"])
        for each in found
        if each["impact"] in GRAVE
        for node in each["nodes"]
    ]


@pytest.mark.parametrize(("schemes", "width"), [(("dark", "light"), 1280), (("dark",), 390)])
def test_no_serious_fault_on_any_page(gallery, state, schemes, width):
    gallery.set_viewport_size({"width": width, "height": 800})
    ids = [record.id for record in state.vault.list(limit=2)]
    for path in PAGES:
        gallery.goto(state.origin + path.replace("ID2", ids[1]).replace("ID", ids[0]))
        gallery.wait_for_load_state("networkidle")
        for scheme in schemes:  # no colour changes slowly
            gallery.emulate_media(color_scheme=scheme)
            assert faults(gallery) == [], scheme
        wide = gallery.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{path} is {wide} pixels wider than the window"
    gallery.goto(state.origin)
    gallery.locator(".cell img").first.wait_for()
    for key in ("x", "?"):  # the selection's bar, the help
        gallery.keyboard.press(key)
        for scheme in schemes:
            gallery.emulate_media(color_scheme=scheme)
            assert faults(gallery) == [], (key, scheme)


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_no_serious_fault_before_it_is_unlocked(served, page, state, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto(served.partition("#")[0])
    assert faults(page) == []
    page.goto(served)
    page.get_by_label("Passphrase").fill("not the one")
    assert faults(page) == []
    page.keyboard.press("Enter")
    page.get_by_text("does not open").wait_for()
    assert faults(page) == []


def test_the_focus_goes_through_the_grid_in_reading_order(gallery):
    gallery.locator(".cell img").first.wait_for()
    gallery.evaluate("document.querySelector('.skip').focus()")
    order = []
    for _ in range(20):
        gallery.keyboard.press("Tab")
        order.append(gallery.evaluate("document.activeElement.id"))
    marks = ["search", "help-button", "lock-button", "blur", "smaller", "larger", "cells"]
    assert [each for each in order if each in marks] == marks
    gallery.evaluate("document.querySelector('.skip').focus()")
    gallery.keyboard.press("Enter")
    assert gallery.evaluate("document.activeElement.id") == "main"


def test_a_picture_is_spoken_with_its_words_and_labels(gallery):
    option = gallery.get_by_role("option").nth(4)
    option.locator("img").wait_for()
    said = option.get_attribute("aria-label")
    assert "red apple" in said or "blue house" in said or "green tree" in said
    assert option.get_attribute("aria-posinset") == "5"
    assert option.get_attribute("aria-setsize") == "24"
