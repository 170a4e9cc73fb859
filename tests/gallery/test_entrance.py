"""In and out of the gallery, as a person does it."""

import pytest

from safelight.gallery.attempts import Attempts
from safelight.gallery.gallery import Gallery
from tests.gallery.conftest import PASSPHRASE


def test_unlock_with_the_passphrase_only(state, browser_session):
    assert browser_session.get("/", headers={"accept": "text/html"}).status_code == 401
    wrong = browser_session.post("/unlock", data={"passphrase": "not the one"})
    assert (wrong.status_code, state.is_locked) == (422, True)
    assert "does not open" in wrong.text
    assert "not the one" not in wrong.text
    none = browser_session.post("/unlock", data={"passphrase": ""})
    assert (none.status_code, state.is_locked) == (422, True)
    right = browser_session.post("/unlock", data={"passphrase": PASSPHRASE})
    assert (right.status_code, state.is_locked) == (204, False)
    assert browser_session.get("/").status_code == 200
    browser_session.post("/lock")
    assert state.is_locked
    assert browser_session.post("/api/search").status_code == 401


def test_guessing_is_stopped_and_the_right_passphrase_waits_too(state, browser_session):
    now = [100.0]  # seconds: what a guess takes on a busy machine is no rest
    state.attempts = Attempts(lambda: now[0])
    for _ in range(3):
        browser_session.post("/unlock", data={"passphrase": "a guess"})
    answer = browser_session.post("/unlock", data={"passphrase": PASSPHRASE})
    assert (answer.status_code, state.is_locked) == (429, True)
    assert int(answer.headers["retry-after"]) >= 1
    assert "Too many" in answer.text
    now[0] += 1.1
    answer = browser_session.post("/unlock", data={"passphrase": PASSPHRASE})
    assert (answer.status_code, state.is_locked) == (204, False)


def test_it_locks_itself_after_rest_and_not_before(settings, browser_session, state):
    now = [100.0]
    gallery = Gallery(settings, idle_seconds=60, clock=lambda: now[0])
    gallery.adopt(_opened(settings))
    now[0] += 59
    assert not gallery.lock_if_idle()
    gallery.touch()
    now[0] += 59
    assert not gallery.lock_if_idle()
    now[0] += 2
    assert gallery.lock_if_idle()
    assert gallery.is_locked


def test_a_script_on_its_own_is_not_a_person(client, state):
    state._used -= 100
    before = state.idle_left()
    client.get("/api/state", headers={"x-safelight-quiet": "1"})
    client.post("/api/search", data={"query": ""}, headers={"x-safelight-quiet": "1"})
    assert state.idle_left() <= before
    client.get("/")
    assert state.idle_left() > before + 90


def test_the_search_is_forgotten_when_it_is_locked(client, state):
    client.post("/api/search", data={"query": "house"})
    assert 'value="house"' in client.get("/").text
    state.lock()
    state.adopt(_opened(state.settings))
    assert "house" not in client.get("/").text


def test_a_vault_that_closed_itself_is_a_locked_gallery(client, state):
    state.vault.lock_after(0.001)
    for _ in range(1000):
        if client.get("/picture/" + "0" * 32).status_code == 401:
            break
    assert state.is_locked


def _opened(settings):
    from vault import PassphraseUnlock, open_vault, passphrase_secret

    return open_vault(settings.vault, PassphraseUnlock(passphrase_secret(PASSPHRASE)))


@pytest.mark.browser
def test_from_the_address_to_the_grid_and_back(gallery, state):
    assert "token" not in gallery.url
    second = gallery.context.new_page()
    second.goto(gallery.url)
    gallery.keyboard.press("Escape")
    gallery.keyboard.press("Escape")
    gallery.get_by_role("heading", name="Locked").wait_for()
    assert state.is_locked
    second.get_by_role("heading", name="Locked").wait_for()  # the other page went dark with it
    assert second.locator("img").count() == 0
    second.get_by_label("Passphrase").fill(PASSPHRASE)
    second.keyboard.press("Enter")
    gallery.get_by_role("button", name="Lock", exact=True).wait_for()  # and came back with it
    state.lock()
    gallery.get_by_role("heading", name="Locked").wait_for(timeout=20_000)
