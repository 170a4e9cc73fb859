"""In and out of the gallery, as a person does it."""

import pytest


def test_unlock_with_the_passphrase_only(state, browser_session):
    assert browser_session.get("/").status_code == 401
    wrong = browser_session.post("/unlock", data={"passphrase": "not the one"})
    assert (wrong.status_code, state.is_locked) == (422, True)
    assert "does not open" in wrong.text
    right = browser_session.post("/unlock", data={"passphrase": "correct horse battery staple"})
    assert (right.status_code, state.is_locked) == (204, False)
    assert browser_session.get("/").status_code == 200
    browser_session.post("/lock")
    assert state.is_locked
    assert browser_session.post("/api/search").status_code == 401


@pytest.mark.browser
def test_from_the_address_to_the_grid_and_back(gallery, state):
    assert "token" not in gallery.url
    gallery.keyboard.press("Escape")
    gallery.keyboard.press("Escape")
    gallery.get_by_role("heading", name="Locked").wait_for()
    assert state.is_locked
