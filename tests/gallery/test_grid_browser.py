"""The grid in a browser: moved through, searched and labelled by the keyboard alone."""

import time

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def active(page):
    """Give the place of the picture that the keyboard stands on."""
    return int(page.locator(".cell.active").get_attribute("data-index"))


def press(page, *keys):
    page.wait_for_load_state()  # a page's scripts take its keys
    for key in keys:
        page.keyboard.press(key)


def test_the_keyboard_moves_selects_labels_and_takes_back(gallery, state):
    gallery.locator(".cell img").first.wait_for()
    press(gallery, "j", "j", "ArrowRight", "k")
    assert active(gallery) == 2
    columns = gallery.evaluate(
        "[...document.querySelectorAll('.cell')].filter((cell) => cell.style.transform.endsWith("
        "document.querySelector('.cell').style.transform.split(',')[1])).length"
    )
    press(gallery, "ArrowDown")
    assert active(gallery) == 2 + columns
    press(gallery, "End")
    assert active(gallery) == 23
    press(gallery, "j", "Home", "k")
    assert active(gallery) == 0
    press(gallery, "x", "Shift+ArrowRight", "Shift+ArrowRight")
    gallery.get_by_text("3 selected").wait_for()
    press(gallery, "4")
    gallery.get_by_role("button", name="Undo").wait_for()
    ids = [row.id for row in state.catalogue.window("", 0, 3)]
    before = [23 % 6, 22 % 6, 21 % 6]  # as the fixture rated them
    assert [state.vault.get(each).metadata["rating"] for each in ids] == [4, 4, 4]
    gallery.get_by_role("button", name="Undo").click()
    gallery.get_by_text("Undone.").wait_for()
    assert [state.vault.get(each).metadata["rating"] for each in ids] == before
    press(gallery, "Escape")
    assert gallery.locator("#selection").is_hidden()
    press(gallery, "A")
    gallery.get_by_text("All 24 selected").wait_for()
    assert gallery.get_by_role("button", name="Compare").is_disabled()


def test_search_by_key_open_and_come_back_to_the_same_place(gallery, state):
    gallery.locator(".cell img").first.wait_for()
    press(gallery, "/")
    gallery.keyboard.type("apple rating:>=3")
    gallery.keyboard.press("Enter")
    gallery.get_by_text("4 pictures", exact=True).wait_for()
    assert gallery.url == state.origin + "/"  # the words are in no address
    press(gallery, "j", "j")
    assert active(gallery) == 2
    gallery.locator(".cell.active img").wait_for()
    press(gallery, "Enter")
    gallery.wait_for_url("**/detail/*")
    gallery.goto(state.origin)
    gallery.get_by_text("4 pictures", exact=True).wait_for()
    gallery.locator(".cell.active").wait_for()
    assert active(gallery) == 2
    assert gallery.locator("#search").input_value() == "apple rating:>=3"
    press(gallery, "/")
    gallery.keyboard.type("rating:many")
    gallery.get_by_text("rating").first.wait_for()
    assert gallery.locator("#search").get_attribute("aria-invalid") == "true"


def look_for(page, words, count):
    press(page, "/")
    page.keyboard.type(words)
    press(page, "Enter")
    page.get_by_text(f"{count} picture{'s' * (count > 1)}", exact=True).wait_for()


def test_everything_is_what_this_tab_shows_whatever_another_tab_looks_for(gallery, state):
    look_for(gallery, "seed:4", 1)
    press(gallery, "A")
    gallery.get_by_text("All 1 selected").wait_for()
    other = gallery.context.new_page()
    other.goto(state.origin)
    other.get_by_text("1 picture", exact=True).wait_for()
    look_for(other, "apple", 8)
    with gallery.expect_request("**/labels/tag") as asked:
        press(gallery, "t")
        gallery.get_by_label("Tags, with commas between").fill("one")
        press(gallery, "Enter")
    gallery.get_by_text("1 picture: tagged one").wait_for()
    assert "seed" not in asked.value.url
    press(gallery, "Delete")
    gallery.get_by_text("1 picture in the trash").wait_for()
    assert [row.tags for row in state.catalogue.window("is:trashed", 0, 9)] == [("even", "one")]
    assert state.catalogue.count("apple") == 8


def test_a_picture_that_came_unseen_is_not_among_everything(gallery, state):
    from tests.gallery.conftest import picture_draft_of

    gallery.route("**/api/version", lambda _: None)  # the grid hears of nothing
    look_for(gallery, "apple", 8)
    press(gallery, "A")
    state.vault.add([picture_draft_of(24)])
    assert state.catalogue.refresh(30)
    press(gallery, "Delete")
    gallery.get_by_text("The pictures have changed since: look again.").wait_for()
    assert state.catalogue.count("is:trashed") == 0


def late(route):
    """Answer as a busy machine does."""
    time.sleep(0.7)
    route.continue_()


def test_a_hand_that_is_faster_than_the_answers_is_obeyed(gallery, state):
    gallery.locator(".cell img").first.wait_for()
    gallery.route("**/api/window", late)
    press(gallery, "/")
    gallery.keyboard.type("apple rating:>=3")
    press(gallery, "Enter", "Enter")  # opens what was asked for, not what stood there
    gallery.wait_for_url("**/detail/*")
    first = next(iter(state.catalogue.window("apple rating:>=3", 0, 1)))
    assert gallery.url.endswith(first.id)


def delay_rows(page, milliseconds):
    """Let rows come late, by how many of them are asked for."""
    page.evaluate(
        """(delays) => {
          const real = fetch;
          window.fetch = async (path, options) => {
            const answer = await real(path, options);
            const delay = path === "/api/window" ? delays[options.body.get("count")] ?? 0 : 0;
            return new Promise((done) => setTimeout(() => done(answer), delay));
          };
        }""",
        {str(count): each for count, each in milliseconds.items()},
    )


def add_one(page, state):
    """Add a picture: the rows of before are forgotten."""
    from tests.gallery.conftest import picture_draft_of

    state.vault.add([picture_draft_of(24)])
    assert state.catalogue.refresh(30)
    page.get_by_text("25 pictures", exact=True).wait_for()


def ratings(state, count):
    ids = [row.id for row in state.catalogue.window("", 0, count)]
    return [state.vault.get(each).metadata["rating"] for each in ids]


def test_a_selection_is_what_was_pressed_whichever_answer_comes_first(gallery, state):
    gallery.locator(".cell img").first.wait_for()
    delay_rows(gallery, {100: 4000, 2: 900, 3: 300})
    add_one(gallery, state)
    press(gallery, "Home", "Shift+ArrowRight", "Shift+ArrowRight", "4")
    gallery.get_by_role("button", name="Undo").wait_for()
    gallery.get_by_text("3 selected").wait_for()
    assert ratings(state, 4) == [4, 4, 4, 21 % 6]


def test_a_key_that_waits_for_its_turn_means_the_picture_that_it_was_pressed_on(gallery, state):
    gallery.locator(".cell img").first.wait_for()
    delay_rows(gallery, {100: 400, 2: 3000})
    add_one(gallery, state)
    press(gallery, "Home", "Shift+ArrowRight")
    gallery.locator(".cell.active img").wait_for()  # its row is here, the selection is not yet
    press(gallery, "Escape", "2", "j", "j")
    gallery.get_by_role("button", name="Undo").wait_for()
    assert ratings(state, 4) == [24 % 6, 2, 22 % 6, 21 % 6]


def test_an_answer_that_comes_late_does_not_move_the_keyboard_back(gallery, state):
    from tests.gallery.conftest import picture_draft_of

    gallery.locator(".cell img").first.wait_for()
    press(gallery, "j", "j")
    gallery.route("**/api/place", late)
    with gallery.expect_request("**/api/place", timeout=10_000):
        state.vault.add([picture_draft_of(24)])
        assert state.catalogue.refresh(30)
    with gallery.expect_response("**/api/place"):
        press(gallery, "j", "j", "j")
    gallery.get_by_text("25 pictures", exact=True).wait_for()
    assert active(gallery) == 5


def test_blur_hides_until_pointed_at_and_stays_over_pages(gallery, state):
    gallery.locator(".cell img").first.wait_for()
    press(gallery, "b")
    with gallery.expect_response("**/api/blur"):
        press(gallery, "b", "b")
    gallery.mouse.move(1, 1)
    picture = gallery.locator(".cell img").nth(5)
    expect(picture).to_have_css("filter", "blur(22px) saturate(0.6)")
    gallery.locator(".cell").nth(5).hover()
    expect(picture).to_have_css("filter", "none")
    gallery.reload()
    gallery.locator(".cell img").first.wait_for()
    assert "blurred" in gallery.locator("body").get_attribute("class")


def test_only_what_shows_is_in_the_page(gallery, state):
    from tests.gallery.conftest import picture_draft_of

    for first in range(24, 264, 16):
        state.vault.add([picture_draft_of(number) for number in range(first, first + 16)])
    assert state.catalogue.refresh(30)
    gallery.get_by_text("264 pictures", exact=True).wait_for()
    press(gallery, "Home")
    assert gallery.locator(".cell").count() < 120
    gallery.locator("#scroller").evaluate("(it) => { it.scrollTop = it.scrollHeight }")
    last = gallery.locator(".cell[data-index='263'] img")
    last.wait_for()
    assert gallery.locator(".cell").count() < 120
    assert last.evaluate("(it) => it.decode().then(() => it.naturalWidth)") == 128


def test_a_key_locks(gallery, state):
    gallery.locator("#cells:focus").wait_for()
    press(gallery, "L")
    gallery.get_by_role("heading", name="Locked").wait_for()
    assert state.is_locked
