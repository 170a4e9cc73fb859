"""The workshop's smaller parts: the feed, the pace, wildcards, word counts, styles, the cards."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Bundle, GenerationRequest, RequestError
from engine.inputs import NO_INPUTS
from safelight.exits import ApplicationError, UsageError
from safelight.kit import Style
from safelight.shelf import Shelf
from safelight.stylesfile import read_styles
from safelight.wildcards import fill_in, wildcards_of
from safelight.workshop.cards import NOTE, cards
from safelight.workshop.feed import MOST, Feed
from safelight.workshop.form import field_of, fields_from
from safelight.workshop.job import Job, what_is_left
from safelight.workshop.pace import Pace
from safelight.workshop.tokens import count_tokens


def request(**given):
    usual = {"width": 512, "height": 512, "steps": 10, "sampler": "euler", "schedule": "karras"}
    return GenerationRequest(**usual | {"prompt": "x", "seed": 1, "guidance_scale": 4.0} | given)


def job(**given):
    return Job(**{"model": "m", "requests": (request(),), "inputs": NO_INPUTS} | given)


def test_a_slow_listener_keeps_little_and_is_told_to_look_again():
    feed = Feed()
    with feed.listen(lambda: None) as listener:
        for number in range(1000):
            feed.tell("step", step=number)
        (last,) = listener.take()
        assert last.data["step"] == 999
        for number in range(MOST + 10):
            feed.tell("sealed", id=number)
        found = listener.take()
        assert len(found) < MOST
        assert (found[0].name, found[-1].data["id"]) == ("queue", MOST + 9)
    feed.tell("sealed", id=0)
    assert listener.take() == []
    assert not feed.is_heard


def test_the_time_left_follows_what_was_measured():
    pace = Pace()
    waiting = job(requests=(request(count=3),))
    assert pace.seconds_left([waiting]) is None
    pace.step("m", request(), 2.0, 10)
    pace.rest("m", request(), 1.0)
    assert pace.seconds_left([waiting]) == pytest.approx(3 * (10 * 2 + 1))
    begun = replace(waiting, behind=1, step=4, steps=10)
    assert pace.seconds_left([begun]) == pytest.approx(2 * 21 - 4 * 2)
    # Heun evaluates nearly twice a step, which only its own run tells
    heun = request(sampler="heun")
    pace.step("m", heun, 2.0, 19)
    assert pace.seconds_left([job(requests=(heun,))]) == pytest.approx(19 * 2 + 1)
    # another size by its pixels; another model is not known
    large = job(requests=(request(width=1024),))
    assert pace.seconds_left([large]) == pytest.approx(2 * 21)
    assert pace.seconds_left([large, job(model="other")]) is None
    assert pace.seconds_left([]) is None


@pytest.mark.parametrize(("devices", "rounds"), [(1, 5), (2, 3), (3, 2), (5, 1), (9, 1)])
def test_several_devices_take_the_time_of_their_rounds(devices, rounds):
    pace = Pace()
    pace.step("m", request(), 2.0, 10)
    pace.rest("m", request(), 1.0)
    waiting = job(requests=tuple(request(count=1) for _ in range(5)))
    assert pace.seconds_left([waiting], devices) == pytest.approx(rounds * 21)
    # the last two are half done, one on each of two devices
    begun = replace(waiting, behind=3, in_hand=2, step=10, steps=20)
    assert (begun.begun, waiting.begun) == (1.0, 0.0)  # in pictures
    assert pace.seconds_left([begun], 2) == pytest.approx(21 - 5 * 2)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.data())
def test_what_is_left_is_exactly_what_is_not_sealed(counts, data):
    requests = tuple(request(seed=100 * k, count=n) for k, n in enumerate(counts))
    whole = job(id="0" * 32, requests=requests)
    sealed = data.draw(st.sets(st.integers(0, sum(counts) - 1)))
    left, places = what_is_left(whole, sealed)
    seeds = [r.seed + k for r in requests for k in range(r.count)]
    got = {
        place.metadata(k)["job"]["index"]: r.seed + k
        for r, place in zip(left, places, strict=True)
        for k in range(r.count)
    }
    assert got == {k: seed for k, seed in enumerate(seeds) if k not in sealed}


LISTS = {"fruit": ["apple", "pear", "__colour__ plum"], "colour": ["red", "blue"]}


def test_a_wildcard_is_the_same_line_for_a_seed_on_every_machine():
    filled = [fill_in("a __fruit__ and a __fruit__", LISTS, seed) for seed in range(4)]
    assert filled == [
        "a pear and a apple",
        "a apple and a pear",
        "a apple and a pear",
        "a blue plum and a blue plum",
    ]
    assert wildcards_of("__a__ __b c__ __a__ snake_case __") == ("a", "b c")


def test_wildcards_that_never_end_are_refused():
    for lists in ({"a": ["__a__"]}, {"a": ["__b__ __b__"] * 2, "b": ["__a__ __a__"]}):
        with pytest.raises(RequestError, match="ever more wildcards"):
            fill_in("__a__", lists, 1)


@given(st.text(max_size=200), st.integers(0, 2**32))
def test_any_prompt_is_filled_or_refused(text, seed):
    try:
        filled = fill_in(text, LISTS, seed)
    except RequestError:
        return
    assert not wildcards_of(filled)
    assert text == filled or wildcards_of(text)


@given(st.binary(max_size=300))
def test_any_file_is_styles_or_refused(data):
    try:
        styles = read_styles(b"name,prompt,negative_prompt\n" + data)
    except UsageError:
        return
    assert all(0 < len(style.name) <= 64 and style.name.isprintable() for style in styles)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no style"),
        (b"prompt,other\nx,y", "these are no styles"),
        (b"name,prompt\n,only words", "no style"),
        (b"name,prompt\n\xff", "not valid UTF-8"),
        (b"name,prompt\n" + b"a,b\n" * 2001, "more than"),
        (b"0" * ((4 << 20) + 1), "larger"),
    ],
    ids=["empty", "header", "nameless", "encoding", "rows", "bytes"],
)
def test_a_file_that_is_none_is_refused(data, says):
    with pytest.raises(UsageError, match=says):
        read_styles(data)


def test_a_style_goes_around_the_prompt_or_behind_it():
    around = Style(name="ink", prompt="ink of {prompt}, paper", negative_prompt="colour")
    assert around.around("a cat", "") == ("ink of a cat, paper", "colour")
    assert Style(name="soft", prompt="soft").around("a cat", "dog") == ("a cat, soft", "dog")


def test_tokens_are_those_that_the_engine_cuts_into_chunks(shelf):
    from engine.texts import plan_texts

    bundle = shelf.open("pocket")
    tokenizers = bundle.tokenizers()
    for text in ("", "red apple", "a " * 29, "a " * 31, "x BREAK y", "[day:night and more:0.5]"):
        counted = count_tokens(text, tokenizers, 10, "a1111")
        one = bundle.request(prompt=text, seed=1, steps=10)
        planned = plan_texts(one, 10, tokenizers, guided=False)
        assert counted.chunks == planned.different[0].ids.shape[1], text
    assert count_tokens("(red:1.2)", tokenizers, 10, "plain").tokens > 3


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    return Shelf(home / "models", home / "cache")


def test_the_cards_tell_what_a_menu_needs(shelf, monkeypatch):
    (card,) = cards(shelf)
    assert (card.name, card.sizes[0], card.steps, card.scale) == ("pocket", (128, 128), 20, 0)
    assert all(side % 8 == 0 for size in card.sizes for side in size)
    assert all(abs(w * h / 128**2 - 1) < 0.25 for w, h in card.sizes)


def test_merged_loras_are_named_and_a_damaged_note_is_passed_over(shelf, tmp_path):
    from safelight.workshop.cards import _loras

    bundle = replace(shelf.open("pocket"), path=tmp_path)
    assert isinstance(bundle, Bundle)
    assert _loras(bundle) == ()
    note = tmp_path / NOTE
    note.write_text('{"loras": [{"file": "ink.safetensors", "scale": 0.8, "sha256": "0"}]}')
    assert _loras(bundle) == (("ink.safetensors", 0.8),)
    note.write_text('{"loras": 5}')
    assert _loras(bundle) == ()


def test_a_form_that_makes_no_sense_is_refused_without_its_values():
    for fields in ({"steps": "x1"}, {"seed": 1.5}, {"prompt": 5}, {"steps": True}, {"width": []}):
        with pytest.raises(ApplicationError) as raised:
            fields_from(fields)
        assert field_of(str(raised.value)) == next(iter(fields))
    with pytest.raises(UsageError, match="more than"):
        fields_from({f"x{k}": "" for k in range(100)})
    assert fields_from({"steps": "7", "guidance_scale": "2", "unknown": "x", "seed": ""}) == {
        "steps": 7,
        "guidance_scale": 2.0,
        "prompt": "",
    }
