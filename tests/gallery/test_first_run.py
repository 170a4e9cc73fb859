"""No vault yet: the page makes one, and the recovery phrase is kept before it exists."""

import re

import pytest

from safelight.settings import load_settings
from tests.gallery.conftest import PASSPHRASE
from vault import PhraseUnlock, inspect, open_vault


@pytest.fixture
def settings(tmp_path):
    """Give the settings of a home without a vault."""
    return load_settings({"home": str(tmp_path / "home")}, {})


def shown_phrase(text):
    return re.search("<code>((?:[0-9A-Z]{5}[- ]?){8})</code>", text)[1]


def test_a_vault_is_made_with_a_passphrase_and_its_phrase_opens_it(state, browser_session):
    first = browser_session.get("/", headers={"accept": "text/html"})
    assert (first.status_code, "Make your vault" in first.text) == (401, True)
    form = {"opener": "passphrase", "passphrase": PASSPHRASE, "again": PASSPHRASE}
    shown = browser_session.post("/welcome", data=form)
    phrase = shown_phrase(shown.text)
    wrong = browser_session.post("/welcome/phrase", data={"phrase": phrase[:-1]})
    assert (wrong.status_code, shown_phrase(wrong.text)) == (422, phrase)
    assert state.is_locked
    assert inspect(state.settings.vault).state == "unfinished"
    typed = phrase.lower().replace("-", " ")
    assert browser_session.post("/welcome/phrase", data={"phrase": typed}).status_code == 204
    assert not state.is_locked
    assert browser_session.get("/").status_code == 200
    assert browser_session.post("/welcome", data=form).status_code == 303  # none is made twice
    state.lock()
    open_vault(state.settings.vault, PhraseUnlock(phrase)).close()
    assert browser_session.post("/unlock", data={"passphrase": PASSPHRASE}).status_code == 204


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"passphrase": "long enough", "again": "other one"}, "differ"),
        ({"passphrase": "short", "again": "short"}, "at least 8"),
        ({"opener": "passphrase"}, "at least 8"),
    ],
)
def test_a_passphrase_that_is_no_good_makes_nothing(state, browser_session, form, said):
    answer = browser_session.post("/welcome", data=form)
    assert (answer.status_code, said in answer.text) == (422, True)
    assert not state.settings.vault.exists()


def test_beginning_again_shows_another_phrase_and_only_that_one_counts(state, browser_session):
    form = {"opener": "passphrase", "passphrase": PASSPHRASE, "again": PASSPHRASE}
    first = shown_phrase(browser_session.post("/welcome", data=form).text)
    second = shown_phrase(browser_session.post("/welcome", data=form).text)
    assert first != second
    assert browser_session.post("/welcome/phrase", data={"phrase": first}).status_code == 422
    assert browser_session.post("/welcome/phrase", data={"phrase": second}).status_code == 204


def test_a_phrase_without_a_beginning_is_no_fault(state, browser_session):
    answer = browser_session.post("/welcome/phrase", data={"phrase": "x"})
    assert (answer.status_code, "Begin again" in answer.text) == (422, True)


def test_leaving_the_first_run_leaves_nothing_that_opens(state, browser_session):
    form = {"opener": "passphrase", "passphrase": PASSPHRASE, "again": PASSPHRASE}
    phrase = shown_phrase(browser_session.post("/welcome", data=form).text)
    browser_session.post("/lock")
    assert browser_session.post("/welcome/phrase", data={"phrase": phrase}).status_code == 422
    assert inspect(state.settings.vault).state == "unfinished"
