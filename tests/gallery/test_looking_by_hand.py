"""Looking, as a person does it in a browser: by the keyboard alone where that is possible."""

import pytest

pytestmark = pytest.mark.browser


def press(page, *keys):
    page.wait_for_load_state()  # a page's scripts take its keys
    for key in keys:
        page.keyboard.press(key)


def shown(page, record_id):
    page.locator(f'#look[data-id="{record_id}"]').wait_for()


def detail_id(page):
    return page.locator("#look").get_attribute("data-id")


@pytest.fixture
def grid(gallery, state):
    """Give a page before the grid, with all pictures there."""
    state.catalogue.refresh(30)
    gallery.locator(".cell[data-id]").first.wait_for()
    gallery.locator("#cells:focus").wait_for()
    return gallery


def test_search_label_undo_and_trash_by_the_keyboard(grid, state):
    page = grid
    ids = [row.id for row in state.catalogue.window("apple", 0, 8)]

    # Search, and open the first that is found.
    press(page, "/")
    page.keyboard.type("apple")
    page.get_by_text("8 pictures", exact=True).wait_for()
    press(page, "Enter")
    page.locator(f'.cell.active[data-id="{ids[0]}"]').wait_for()
    page.locator("#cells:focus").wait_for()
    press(page, "Enter")
    page.locator("#look").wait_for()
    assert detail_id(page) == ids[0]
    assert "apple" not in page.url
    assert "apple" not in page.title()

    # Walk, zoom, rate, favour and tag.
    press(page, "j")
    shown(page, ids[1])
    press(page, "z")
    page.locator("#scale", has_text="%").wait_for()
    press(page, "z", "4")
    page.get_by_text("1 picture: rated ★★★★").wait_for()
    press(page, "f")
    page.get_by_text("1 picture: favourite").wait_for()
    press(page, "t")
    page.keyboard.type("wall")
    press(page, "Enter")
    page.locator(".chips li", has_text="wall").wait_for()
    about = state.vault.get(ids[1]).metadata
    assert (about["rating"], about["favourite"], "wall" in about["tags"]) == (4, True, True)
    page.get_by_role("button", name="Undo").click()
    page.locator(".chips li", has_text="wall").wait_for(state="detached")
    assert "wall" not in state.vault.get(ids[1]).metadata["tags"]

    # To the trash; the next one is shown. One Esc goes back to the grid, still at the search.
    press(page, "Delete")
    shown(page, ids[2])
    press(page, "Escape")
    page.get_by_text("7 pictures", exact=True).wait_for()
    assert page.locator("#search").input_value() == "apple"


def test_compare_restore_and_shred_by_the_keyboard(grid, state):
    page, ids = grid, [row.id for row in state.catalogue.window("", 0, 3)]

    # Two are chosen and compared: slider, side by side, difference.
    press(page, "Home", "x", "j", "x", "c")
    page.get_by_role("heading", name="Compare", exact=True).wait_for()
    press(page, "3")
    page.locator("#apart[src]").evaluate("map => map.decode()")
    press(page, "2")
    page.locator('.beside [title="Look at A"]').wait_for()
    press(page, "1", "ArrowRight")
    assert page.locator("#split").input_value() == "55"

    # The trash: restore, throw away again, shred, and read the receipt.
    state.vault.trash([ids[1]])
    state.catalogue.refresh()
    page.goto(f"{state.origin}/trash")
    press(page, "j", " ")
    page.get_by_text("1 chosen").wait_for()
    press(page, "u")
    page.get_by_text("1 picture back from the trash").wait_for()
    assert state.vault.get(ids[1]).trashed is None
    state.vault.trash([ids[1]])
    state.catalogue.refresh()
    page.reload()
    page.get_by_role("button", name="Shred all…").click()
    page.get_by_text("Shred 1 record?").wait_for()
    page.get_by_role("button", name="Shred", exact=True).click()
    page.get_by_role("heading", name="Shredded").wait_for()
    page.get_by_text("What could still open what is gone").wait_for()
    page.get_by_role("button", name="Done").click()
    page.get_by_text("Empty.").wait_for()
    assert state.catalogue.row(ids[1]) is None


def test_albums_kept_searches_slides_settings_and_light(grid):
    page = grid
    page.emulate_media(color_scheme="light")

    # An album of two pictures, made in the grid.
    press(page, "Home", "x", "j", "x", "l")
    page.get_by_label("Albums, with commas between").fill("Best of")
    press(page, "Enter")
    page.get_by_text("2 pictures: put into Best of").wait_for()

    # A kept search.
    press(page, "/")
    page.keyboard.type("rating:5")
    page.get_by_text("4 pictures", exact=True).wait_for()
    press(page, "Enter", "s")
    page.get_by_label("Name", exact=True).fill("Five stars")
    press(page, "Enter")
    page.get_by_text("Kept as Five stars.").wait_for()
    page.locator("#searches option", has_text="Five stars").wait_for(state="attached")

    page.get_by_role("link", name="Albums").click()
    page.get_by_role("button", name="Best of").click()
    page.get_by_text("2 pictures", exact=True).wait_for()
    page.locator("#searches").select_option("Five stars")
    page.get_by_text("4 pictures", exact=True).wait_for()

    # The slide show goes through what is found, and round.
    page.get_by_role("link", name="Slides").click()
    page.get_by_text("1 of 4").wait_for()
    press(page, " ", "k")
    page.get_by_text("4 of 4").wait_for()
    press(page, "j")
    page.get_by_text("1 of 4").wait_for()

    page.get_by_role("link", name="Settings").click()
    page.get_by_role("button", name="Check", exact=True).click()
    page.get_by_text("nothing is wrong").wait_for()
    page.get_by_role("button", name="List the files").click()
    page.get_by_role("cell", name="every key and all metadata, sealed").wait_for()
    page.get_by_label("Days in the trash").fill("nonsense")
    page.get_by_role("button", name="Set", exact=True).click()
    page.get_by_text("trash days is a number").wait_for()
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert ground == "rgb(244, 241, 237)"
