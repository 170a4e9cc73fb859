"""The studio in a browser, with pocket: live preview, stop, again, a painted mask, the keyboard."""

import pytest
from playwright.sync_api import expect

from safelight.gallery.pages.queue import LATELY
from vault import Kind

pytestmark = pytest.mark.browser
PASSPHRASE = "correct horse battery staple"  # of conftest's vault
LONG = 60_000  # milliseconds that nothing here takes


def pictures(page):
    return page.locator("#strip button")


def wait_until_made(page, number):
    pictures(page).nth(number - 1).wait_for(timeout=LONG)
    page.locator("#run").wait_for(state="hidden", timeout=LONG)


def drawn(state):
    """List what the studio drew, newest first."""
    return [r for r in state.vault.list() if "job" in r.metadata]


def test_from_a_prompt_to_a_painted_picture(gallery, state):
    page = gallery
    page.get_by_role("link", name="Studio").click()
    pictures(page).nth(LATELY - 1).wait_for()
    prompt = page.get_by_role("textbox", name="Prompt")
    prompt.fill("red apple")
    page.locator("#prompt-tokens").filter(has_text="2 of 30").wait_for()
    prompt.select_text()
    prompt.press("Control+ArrowUp")
    assert prompt.input_value() == "(red apple:1.1)"
    prompt.press("Control+ArrowDown")
    page.get_by_label("Steps", exact=True).fill("60")
    page.get_by_label("Pictures", exact=True).fill("200")
    prompt.press("Control+Enter")

    page.locator("#stage[data-preview] img[src^='/events/preview/']").wait_for(timeout=LONG)
    assert "of 60" in page.locator("#run-text").inner_text()
    page.locator('.job[data-state="running"]').wait_for()
    page.locator("#run-text").filter(has_text="left").wait_for(timeout=LONG)
    pictures(page).nth(LATELY).wait_for(timeout=LONG)
    page.get_by_role("button", name="Stop").first.click()
    page.locator("#run").wait_for(state="hidden", timeout=LONG)
    made = drawn(state)
    assert 1 <= len(made) < 200
    (attempt,) = state.vault.list(kinds=(Kind.ATTEMPT,))
    assert attempt.metadata["outcome"] == "cancelled"

    # again: the same, with another seed
    page.get_by_label("Pictures", exact=True).fill("1")
    page.get_by_label("Steps", exact=True).fill("8")
    page.get_by_role("button", name="Make").click()
    page.locator(".job").first.wait_for(state="detached", timeout=LONG)
    wait_until_made(page, LATELY + len(made) + 1)
    page.keyboard.press("Escape")
    page.locator("h1").first.evaluate("each => document.activeElement.blur()")
    page.keyboard.press("a")
    wait_until_made(page, LATELY + len(made) + 2)
    newest, first = drawn(state)[:2]
    assert newest.metadata["prompt"] == first.metadata["prompt"] == "red apple"
    assert newest.metadata["settings"]["seed"] != first.metadata["settings"]["seed"]

    painted = paint_on_the_newest(page, state, LATELY + len(made) + 3)
    assert painted.metadata["parent"] == newest.id
    assert {"init", "mask"} <= set(painted.blobs)
    mask = state.vault.read(painted.id, "mask")
    assert 0.005 < share_of_white(mask) < 0.2

    # from a picture's own page
    page.goto(f"{state.origin}/studio?from={newest.id}&as=remix")
    page.locator(f"#shown[src$='{newest.id}']").wait_for()
    page.locator(f"#begin-init[src$='{newest.id}']").wait_for()
    expect(page.get_by_role("textbox", name="Prompt")).to_have_value("red apple")


def paint_on_the_newest(page, state, number):
    """Paint a short line of mask in the middle, and give the picture made with it."""
    page.get_by_role("button", name="Paint", exact=True).click()
    box = page.locator("#paint-mask").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 80, middle[1] + 60, steps=5)
    page.mouse.up()
    page.get_by_role("button", name="Done").click()
    page.locator("#begin-mask").wait_for()
    page.get_by_role("textbox", name="Prompt").fill("red apple, blue star")
    page.get_by_role("button", name="Make").click()
    wait_until_made(page, number)
    return drawn(state)[0]


def share_of_white(data):
    import io

    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return float((np.asarray(image.convert("L")) >= 128).mean())


def test_a_refusal_stands_beside_its_field_and_everything_fits_a_phone(gallery, state):
    page = gallery
    page.get_by_role("link", name="Studio").click()
    page.get_by_role("textbox", name="Prompt").fill("blue house")
    page.get_by_label("Width in pixels").fill("13")
    page.get_by_role("button", name="Make").click()
    told = page.locator("#e-width")
    told.filter(has_text="multiple of 8").wait_for()
    assert page.get_by_label("Width in pixels").get_attribute("aria-invalid") == "true"
    page.get_by_label("Width in pixels").fill("")
    # what was typed is still there after a look at the gallery, and gone after a lock
    page.get_by_role("link", name="Gallery").click()
    page.get_by_role("link", name="Studio").click()
    expect(page.get_by_role("textbox", name="Prompt")).to_have_value("blue house")
    for width in (360, 768, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width
    drop_a_picture(page)
    page.locator("#begin-init").wait_for()
    page.get_by_role("button", name="Take away").click()

    # a lock in the middle of the work: the page is dark, and the rest is offered afterwards
    page.get_by_label("Pictures", exact=True).fill("200")
    page.get_by_role("button", name="Make").click()
    page.locator("#stage[data-preview]").wait_for(timeout=LONG)
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.get_by_label("Passphrase").wait_for()
    assert "blue house" not in page.content()
    page.get_by_label("Passphrase").fill(PASSPHRASE)
    page.get_by_role("button", name="Unlock", exact=True).click()
    page.get_by_role("button", name="Go on with 1").wait_for()
    page.get_by_role("button", name="Cancel all").click()
    page.locator(".job").wait_for(state="detached")


def drop_a_picture(page):
    """Drop a picture on the page as a person does with a file."""
    page.evaluate(
        """() => {
          const canvas = document.createElement("canvas");
          canvas.width = canvas.height = 64;
          canvas.getContext("2d").fillRect(0, 0, 32, 64);
          canvas.toBlob((blob) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([blob], "x.png", { type: "image/png" }));
            document.body.dispatchEvent(
              new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }),
            );
          });
        }"""
    )


def test_a_mask_is_painted_by_the_keyboard_alone(gallery, state):
    page = gallery
    page.goto(f"{state.origin}/studio")
    newest = drawn_from(page)
    page.keyboard.press("p")
    page.locator("#paint-mask:focus").wait_for()
    page.keyboard.press("Space")  # a stroke to the right, from the middle
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowDown")  # lifted: this paints nothing
    told = page.locator("#brush-text").inner_text()
    assert told.startswith("Not painting, 5")  # percent from the left: right of the middle
    columns = painted_columns(page)
    assert min(columns) < 50 < max(columns)
    assert 100 - max(columns) < min(columns)  # more of it lies to the right
    page.keyboard.press("Space")
    page.keyboard.press("Control+z")
    assert painted_columns(page) == columns
    for _ in range(20):  # to Done, as a keyboard gets there
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.id") == "paint-done":
            break
    page.keyboard.press("Enter")
    page.locator("#begin-mask").wait_for()
    assert page.locator("#begin-init").get_attribute("src").endswith(newest)


def drawn_from(page):
    """Wait for the picture on the stage; give its id, with the focus on nothing."""
    shown = page.locator("#shown[src]")
    shown.wait_for()
    page.wait_for_load_state()
    page.evaluate("document.activeElement.blur()")
    return shown.get_attribute("src").rsplit("/", 1)[1]


def painted_columns(page):
    """Give where the mask is painted, in percent from the left."""
    return page.evaluate(
        """() => {
          const mask = document.getElementById("paint-mask");
          const data = mask.getContext("2d").getImageData(0, 0, mask.width, mask.height).data;
          const found = new Set();
          for (let at = 0; at < data.length; at += 4) {
            const column = (at / 4) % mask.width;
            if (data[at + 3] >= 128) found.add(Math.floor((100 * column) / mask.width));
          }
          return [...found].sort((a, b) => a - b);
        }"""
    )


def test_incognito_leaves_nothing_until_a_picture_is_kept(gallery, state):
    page, before = gallery, files_of(state)
    page.goto(f"{state.origin}/studio")
    assert page.locator("#incognito-badge").is_hidden()
    page.get_by_label("Incognito").check()
    page.locator("#incognito-badge").wait_for()
    page.get_by_role("textbox", name="Prompt").fill("secret fox")
    page.get_by_label("Steps", exact=True).fill("2")
    page.get_by_label("Pictures", exact=True).fill("2")
    page.get_by_role("button", name="Make", exact=True).click()
    page.locator("#strip button[data-unsealed]").nth(1).wait_for(timeout=LONG)
    page.locator("#run").wait_for(state="hidden", timeout=LONG)
    expect(page.get_by_role("button", name="Again")).to_be_hidden()
    assert files_of(state) == before
    assert drawn(state) == []
    assert page.locator("#shown").evaluate("it => it.decode().then(() => it.naturalWidth)") == 128

    # the badge stands on every page, and the pictures are still there on the way back
    page.get_by_role("link", name="Gallery").click()
    page.locator("#incognito-badge").wait_for()
    page.get_by_role("link", name="Studio").click()
    page.locator("#strip button[data-unsealed]").nth(1).click()
    page.get_by_role("button", name="Forget").click()
    page.locator("#strip button[data-unsealed]").nth(1).wait_for(state="detached")
    page.locator("#strip button[data-unsealed]").click()
    page.get_by_role("button", name="Keep", exact=True).click()
    page.get_by_text("Sealed in your vault.", exact=True).wait_for()
    (kept,) = drawn(state)
    assert kept.metadata["prompt"] == "secret fox"
    page.get_by_role("button", name="Again").wait_for()

    # what is not kept is gone with the lock
    page.get_by_label("Pictures", exact=True).fill("1")
    page.get_by_role("button", name="Make", exact=True).click()
    page.locator("#strip button[data-unsealed]").wait_for(timeout=LONG)
    name = page.locator("#strip button[data-unsealed]").get_attribute("data-id")
    state.lock()
    page.get_by_label("Passphrase").wait_for()
    page.get_by_label("Passphrase").fill(PASSPHRASE)
    page.get_by_role("button", name="Unlock", exact=True).click()
    page.locator("#strip button").first.wait_for()
    assert page.locator("#strip button[data-unsealed]").count() == 0
    assert page.evaluate(f"fetch('/events/picture/{name}').then((it) => it.status)") == 404
    assert len(drawn(state)) == 1


def files_of(state):
    """Give all files of the vault, with what they hold."""
    places = (each for each in state.settings.vault.rglob("*") if each.is_file())
    return {place: place.read_bytes() for place in places}


def test_a_lora_is_added_and_drawn_with(gallery, state):
    from tests.export.test_reweight import POCKET, some_lora, weights_of

    folder = state.settings.loras
    made, _ = some_lora(folder.parent / "drawn", weights_of(POCKET))
    folder.mkdir()
    made.rename(folder / "ink.safetensors")
    page = gallery
    page.goto(f"{state.origin}/studio")
    page.get_by_text("LoRA", exact=True).click()
    add = page.get_by_role("button", name="Add to the model")
    page.get_by_label("ink", exact=True).fill("much")
    assert add.is_disabled()
    page.get_by_label("ink", exact=True).fill("90")
    add.click()
    page.get_by_text("the scale of LoRA 'ink' is 90").wait_for()
    page.get_by_label("ink", exact=True).fill("0.5")
    add.click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("pocket-ink-0.5", timeout=LONG)
    page.get_by_text("LoRA: ink.safetensors × 0.5").wait_for()
    page.get_by_role("textbox", name="Prompt").fill("red apple")
    page.get_by_label("Steps", exact=True).fill("2")
    page.get_by_role("button", name="Make", exact=True).click()
    pictures(page).nth(LATELY).wait_for(timeout=LONG)
    assert drawn(state)[0].metadata["model"] == "pocket-ink-0.5"
    page.get_by_label("Model", exact=True).select_option("pocket")
    expect(page.get_by_label("ink", exact=True)).to_have_value("")
