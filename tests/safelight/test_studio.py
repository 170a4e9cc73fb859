"""Generate and seal, at the shipped seams: FakeBackend and MemoryKeyStore, a real vault on disk."""

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import safelight
from engine import (
    Bundle,
    DeviceError,
    EngineError,
    FakeBackend,
    NotFiniteError,
    Pipeline,
    RequestError,
    Step,
)
from engine.replicas import Replicas
from safelight.sealer import BATCH
from safelight.studio import Failed, Made, Sealed, Studio
from tests.engine.companion_bundle import with_companions
from tests.engine.test_replicas import Lost, Meeting, Sound
from vault import BadValueError, Kind, MemoryKeyStore, StorageError, create

POCKET = Path(safelight.__file__).with_name("models") / "pocket"


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(POCKET, hash_cache=None)


@pytest.fixture
def vault(tmp_path):
    store = MemoryKeyStore()
    with create(tmp_path / "vault", keystore=store, confirm=lambda phrase: None) as opened:
        yield opened


def request(bundle, **given):
    return bundle.request(**{"prompt": "red apple", "seed": 5, "steps": 3} | given)


def run(bundle, vault, requests, *, backend=None, cancelled=lambda: False):
    return Studio(Pipeline(bundle, backend or FakeBackend()), vault).run(requests, cancelled)


def test_a_sealed_event_names_a_record_that_is_there_already(bundle, vault):
    sealed = 0
    for event in run(bundle, vault, [request(bundle, count=3)]):
        if isinstance(event, Sealed):
            record = vault.get(event.record_id)
            assert record.metadata["settings"]["seed"] == event.line["seed"] == 5 + sealed
            assert record.metadata["prompt"] == "red apple"
            sealed += 1
    assert sealed == 3


def test_picture_and_thumbnail_are_the_same_picture_without_a_word(bundle, vault):
    (event,) = [e for e in run(bundle, vault, [request(bundle)]) if isinstance(e, Sealed)]
    pictures = {}
    for name in ("picture", "thumbnail"):
        with Image.open(io.BytesIO(vault.read(event.record_id, name))) as image:
            pictures[name] = np.asarray(image.convert("RGB").resize((8, 8)), dtype=float)
            assert not {"parameters", "comment", "exif", "Software"} & set(image.info)
    assert np.abs(pictures["picture"] - pictures["thumbnail"]).mean() < 20


def test_many_quick_pictures_share_transactions_of_sixteen(bundle, vault):
    before = vault.status().generation
    events = [e for e in run(bundle, vault, [request(bundle, count=40)]) if isinstance(e, Sealed)]
    assert len({e.record_id for e in events}) == 40
    assert vault.status().generation - before <= 40 // BATCH + 2


def test_a_cancelled_run_keeps_what_is_finished_and_is_an_attempt(bundle, vault):
    sealed, steps = [], 0

    def cancelled():
        return steps >= 7  # in the third picture of three steps each

    for event in run(bundle, vault, [request(bundle, count=9)], cancelled=cancelled):
        steps += isinstance(event, Step)
        sealed += [event] if isinstance(event, Sealed) else []
    assert len(sealed) == 2
    (attempt,) = vault.list(kinds=(Kind.ATTEMPT,))
    assert attempt.metadata["outcome"] == "cancelled"
    assert attempt.metadata["settings"]["count"] == 9


def test_a_cancel_after_the_last_picture_is_no_attempt(bundle, vault):
    made = []

    def cancelled():
        return len(made) == 2

    for event in run(bundle, vault, [request(bundle, count=2)], cancelled=cancelled):
        made += [event] if isinstance(event, Sealed) else []
    assert len(made) == 2
    assert list(vault.list(kinds=(Kind.ATTEMPT,))) == []


@pytest.mark.parametrize(
    ("backend", "error"),
    [
        (FakeBackend(nan_at_step=1, nan_in_exact=True, precision="bf16"), NotFiniteError),
        (FakeBackend(fails_on="latent_sample"), DeviceError),
    ],
)
def test_a_failed_run_is_an_attempt_with_its_request_and_the_error_goes_on(
    bundle, vault, backend, error
):
    with pytest.raises(error):
        list(run(bundle, vault, [request(bundle)], backend=backend))
    (attempt,) = vault.list(kinds=(Kind.ATTEMPT,))
    assert attempt.metadata["outcome"] == f"failed: {error.__name__}"
    assert attempt.metadata["prompt"] == "red apple"


def test_a_device_that_is_gone_half_way_costs_the_picture_in_hand_alone(bundle, vault):
    backend = FakeBackend(lost_at_step=7)  # in the third picture of three steps each
    events = []
    with pytest.raises(DeviceError, match="gone"):
        events.extend(run(bundle, vault, [request(bundle, count=9)], backend=backend))
    assert [event.line["seed"] for event in events if isinstance(event, Sealed)] == [5, 6]
    assert len(list(vault.list())) == 2
    (attempt,) = vault.list(kinds=(Kind.ATTEMPT,))
    assert attempt.metadata["outcome"] == "failed: DeviceError"


def test_a_failure_in_a_later_request_keeps_the_pictures_before_it(bundle, vault):
    good = request(bundle, count=2)
    bad = request(bundle, prompt="bad", sampler="lcm", steps=60)  # lcm takes at most 50
    events = []
    with pytest.raises(EngineError):
        events.extend(run(bundle, vault, [good, bad]))
    assert len(list(vault.list())) == 2
    (attempt,) = vault.list(kinds=(Kind.ATTEMPT,))
    assert attempt.metadata["prompt"] == "bad"


def test_a_repair_is_recorded(bundle, vault):
    backend = FakeBackend(nan_at_step=1, precision="bf16")
    (event,) = [
        e for e in run(bundle, vault, [request(bundle)], backend=backend) if isinstance(e, Sealed)
    ]
    assert vault.get(event.record_id).metadata["repairs"]


def test_a_flagged_picture_is_sealed_black_and_says_so(bundle, vault, tmp_path):
    checked = with_companions(bundle, tmp_path / "bundle", threshold=0.5)
    for cosine, flagged in ((0.6, True), (0.4, False)):
        backend = FakeBackend(concept_cosine=cosine)
        events = list(run(checked, vault, [request(checked)], backend=backend))
        (event,) = [e for e in events if isinstance(e, Sealed)]
        assert event.line["flagged"] is flagged
        assert vault.get(event.record_id).metadata["flagged"] is flagged
        for name in ("picture", "thumbnail"):
            with Image.open(io.BytesIO(vault.read(event.record_id, name))) as image:
                assert bool(np.asarray(image.convert("RGB")).any()) is not flagged


def test_incognito_gives_bytes_and_keeps_nothing(bundle):
    events = list(run(bundle, None, [request(bundle)]))
    (made,) = [e for e in events if isinstance(e, Made)]
    assert made.png.startswith(b"\x89PNG")
    assert made.line["id"] == ""


def test_a_run_that_keeps_going_records_what_failed_and_makes_the_rest(bundle, vault):
    bad = request(bundle, prompt="bad", sampler="lcm", steps=60)  # lcm takes at most 50
    studio = Studio(Pipeline(bundle, FakeBackend()), vault)
    asked = [request(bundle, seed=1), bad, request(bundle, seed=2)]
    events = list(studio.run(asked, lambda: False, keep_going=True))
    told = [e for e in events if not isinstance(e, Step)]
    assert [type(e) for e in told] == [Sealed, Failed, Sealed]
    assert (told[1].index, type(told[1].error)) == (1, RequestError)
    assert [told[0].line["seed"], told[2].line["seed"]] == [1, 2]
    (attempt,) = vault.list(kinds=(Kind.ATTEMPT,))
    assert attempt.metadata["prompt"] == "bad"


class NoAttempts:
    """A vault that takes pictures alone."""

    def __init__(self, vault, error):
        self._vault = vault
        self._error = error

    def add(self, drafts):
        if any(draft.kind is Kind.ATTEMPT for draft in drafts):
            raise self._error
        return self._vault.add(drafts)


@pytest.mark.parametrize("error", [BadValueError("no JSON"), StorageError("full")], ids=str)
def test_an_attempt_that_cannot_be_kept_hides_no_error_and_costs_no_picture(bundle, vault, error):
    bad = request(bundle, prompt="bad", sampler="lcm", steps=60)  # lcm takes at most 50
    asked = [request(bundle, seed=1), bad, request(bundle, seed=2)]
    studio = Studio(Pipeline(bundle, FakeBackend()), NoAttempts(vault, error))
    events = list(studio.run(asked, lambda: False, keep_going=True))
    told = [each for each in events if not isinstance(each, Step)]
    assert [type(each) for each in told] == [Sealed, Failed, Sealed]
    assert isinstance(told[1].error, RequestError)
    with pytest.raises(RequestError):
        list(studio.run(asked, lambda: False))


# -- several devices ---------------------------------------------------------------------------


def several(bundle, *backends):
    return Replicas([Pipeline(bundle, each) for each in backends])


class Numbered:
    """What a request is a part of: names its pictures."""

    def __init__(self, name):
        self.name = name

    def metadata(self, picture, /):
        return {"part": f"{self.name}{picture}"}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_several_devices_seal_what_one_does_in_the_same_order(bundle, vault, count):
    asked = [request(bundle, seed=10 * k, count=1 + k % 2) for k in range(5)]
    parts = [Numbered(name) for name in "abcde"]
    slow = FakeBackend(seconds_per_run=0.005)  # so that later pictures are ready before
    studio = Studio(several(bundle, slow, *[FakeBackend()] * (count - 1)), vault)
    events = list(studio.run(asked, lambda: False, parts=parts))
    sealed = [each for each in events if isinstance(each, Sealed)]
    assert [each.line["seed"] for each in sealed] == [0, 10, 11, 20, 30, 31, 40]
    found = [vault.get(each.record_id).metadata["part"] for each in sealed]
    assert found == ["a0", "b0", "b1", "c0", "d0", "d1", "e0"]
    assert [each.more["part"] for each in sealed] == found
    steps = {each.picture for each in events if isinstance(each, Step)}
    assert steps == set(range(7))  # numbered through the whole run


def test_of_several_devices_one_that_is_lost_costs_what_was_in_hand_alone(bundle, vault):
    third = threading.Event()
    pipeline = several(bundle, Sound(third, device="card 0"), Lost(third, device="card 1"))
    asked = [request(bundle, seed=10 * k) for k in range(50)]
    parts = [Numbered(f"{k} ") for k in range(50)]
    events = []
    with pytest.raises(DeviceError, match="card 1"):
        events.extend(Studio(pipeline, vault).run(asked, lambda: False, parts=parts))
    sealed = [each for each in events if isinstance(each, Sealed)]
    seeds = [each.line["seed"] for each in sealed]
    assert 2 <= len(seeds) < 49
    assert seeds == sorted(seeds)
    assert len({0, 10} & set(seeds)) == 1
    # each is sealed as the part that it is, though one before it is missing
    assert [each.more["part"] for each in sealed] == [f"{seed // 10} 0" for seed in seeds]
    (attempt,) = vault.list(kinds=(Kind.ATTEMPT,))
    assert attempt.metadata["outcome"] == "failed: DeviceError"
    assert {attempt.metadata["settings"]["seed"]} == {0, 10} - set(seeds)


def test_closing_seals_what_waited_for_its_turn(bundle, vault):
    third = threading.Event()
    held = threading.Event()
    pipeline = several(bundle, Sound(third), Lost(held))
    events = Studio(pipeline, vault).run([request(bundle, count=40)], lambda: False)
    for event in events:  # the second device is held before its first picture
        if isinstance(event, Step) and third.is_set():
            held.set()
            break
    events.close()
    sealed = sorted(each.metadata["settings"]["seed"] for each in vault.list())
    assert len(sealed) >= 2
    assert len({5, 6} & set(sealed)) == 1
    assert list(vault.list(kinds=(Kind.ATTEMPT,))) == []


def test_cancelling_several_devices_leaves_an_attempt_of_each_request_in_hand(bundle, vault):
    seen = set()

    def cancelled():
        return len(seen) >= 2

    asked = [request(bundle, seed=10 * k) for k in range(4)]
    studio = Studio(several(bundle, Meeting(), Meeting()), vault)
    Meeting.barrier.reset()
    for event in studio.run(asked, cancelled):
        seen |= {event.picture} if isinstance(event, Step) else set()
    attempts = list(vault.list(kinds=(Kind.ATTEMPT,)))
    assert {each.metadata["outcome"] for each in attempts} == {"cancelled"}
    sealed = {each.metadata["settings"]["seed"] for each in vault.list()}  # by the quicker one
    in_hand = {10 * picture for picture in seen} - sealed
    assert sorted(each.metadata["settings"]["seed"] for each in attempts) == sorted(in_hand)


@pytest.mark.parametrize("count", [1, 2])
def test_several_devices_keep_going_as_one_does(bundle, vault, count):
    bad = request(bundle, prompt="bad", sampler="lcm", steps=60)  # lcm takes at most 50
    asked = [request(bundle, seed=1), bad, request(bundle, seed=2)]
    studio = Studio(several(bundle, *[FakeBackend()] * count), vault)
    told = [e for e in studio.run(asked, lambda: False, keep_going=True) if not isinstance(e, Step)]
    assert [type(each) for each in told] == [Sealed, Failed, Sealed]
    assert (told[1].index, type(told[1].error)) == (1, RequestError)
    assert [told[0].line["seed"], told[2].line["seed"]] == [1, 2]


def test_a_lost_device_ends_a_run_that_keeps_going_too(bundle, vault):
    studio = Studio(Pipeline(bundle, FakeBackend(fails_on="latent_sample")), vault)
    with pytest.raises(DeviceError):
        list(studio.run([request(bundle)] * 2, lambda: False, keep_going=True))
    assert len(list(vault.list(kinds=(Kind.ATTEMPT,)))) == 1
