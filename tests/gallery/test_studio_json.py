"""The studio's JSON, asked with much that makes no sense: an answer each time, never a fault."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import FakeBackend
from safelight.gallery.making import making_of
from safelight.orders import field_types
from safelight.shelf import Shelf
from safelight.workshop import Pipelines

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()  # also NaN and Infinity: Python's JSON lets them through
    | st.text(max_size=20)
    | st.sampled_from(["1", "0.5", "-1", "1e400", "9" * 5000, "euler", "__x__", "(((", "record"])
)
ANY = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = st.dictionaries(st.sampled_from(sorted(field_types())), SCALARS, max_size=5)
ID = st.sampled_from(["0" * 32, "record", "", "x"])
FORM = st.fixed_dictionaries(
    {},
    optional={
        "model": st.just("pocket") | ANY,
        "fields": FIELDS | ANY,
        "styles": st.lists(ID, max_size=2) | ANY,
        "init": ID | ANY,
        "mask": ID | ANY,
        "parent": ID | ANY,
        "record": ID | ANY,
        "upscaler": st.just("pocket") | ANY,
        "name": st.text(max_size=70) | ANY,
        "lines": st.text(max_size=40) | ANY,
        "prompt": st.text(max_size=20) | ANY,
        "incognito": st.booleans() | ANY,
        "base": st.just("pocket") | ANY,
        "scales": st.dictionaries(st.text(max_size=5), SCALARS, max_size=3) | ANY,
    },
)
PATHS = ("submit", "tokens", "upscale", "lora", "kit/preset", "kit/style", "kit/wordlist")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    home = tmp_path_factory.mktemp("shelf")
    return Shelf(home / "models", home / "cache")


@pytest.mark.parametrize("path", PATHS)
def test_whatever_is_asked_is_answered(client, state, shelf, path):
    state.making.open_pipelines = lambda: Pipelines(shelf, FakeBackend)
    making_of(state).workshop.pause()

    @settings(
        max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(asked=FORM | ANY)
    def ask(asked):
        body = json.dumps(asked).encode("utf-8", "surrogatepass")
        answer = client.post(
            f"/studio/{path}", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code in {200, 204, 404, 422}, answer.text

    ask()
    assert client.get("/studio").status_code == 200  # whatever is kept can be shown
    for text in ("\\ud800", "NaN"):  # half of a character; no number
        value = text if text == "NaN" else f'"{text}"'
        names = (*field_types(), "prompt", "lines", "name")
        fields = ",".join(f'"{name}": {value}' for name in sorted(set(names)))
        body = f'{{"model": "pocket", {fields}, "fields": {{{fields}}}}}'
        answer = client.post(
            f"/studio/{path}", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 422
