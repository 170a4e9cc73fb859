"""What a picture takes: seconds and peaks of memory by stage, as each gauge tells them."""

import mmap
import sys
from pathlib import Path

import pytest

import safelight
from engine import Bundle, DeviceError, FakeBackend, PeakMemory, Picture, Pipeline, Step
from engine.backends.torch import TorchBackend
from engine.usage import STAGES, CounterGauge, DeviceGauge, ProcessGauge, Usage, gauge_for

MIB = 1 << 20
TOTAL = 1000  # bytes of the fake cards
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it by /proc")


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(Path(safelight.__file__).parent / "models" / "pocket", hash_cache=None)


def request(bundle, **given):
    usual = {"prompt": "red apple", "seed": 7, "steps": 3, "width": 64, "height": 64}
    return bundle.request(**(usual | given))


def drawn(pipeline, made):
    return [each for each in pipeline.generate(made) if isinstance(each, Picture)]


class Card(FakeBackend):
    """A fake with a memory of its own: each network that is loaded takes 100 bytes of it."""

    def __init__(self, **given):
        super().__init__(**given)
        object.__setattr__(self, "loaded", [])
        object.__setattr__(self, "readings", [])

    def load(self, model, shapes, *, identity=""):
        self.loaded.append(model)
        return super().load(model, shapes, identity=identity)

    def memory(self):
        self.readings.append(100 * len(self.loaded))
        return TOTAL - self.readings[-1], TOTAL


class Counting(FakeBackend):
    """A fake whose library counts: 10 bytes a reset, so that each stage has another figure."""

    counts_memory = True

    def __init__(self, **given):
        super().__init__(**given)
        object.__setattr__(self, "resets", [])

    def reset_peak_memory(self):
        self.resets.append("reset")

    def peak_memory(self):
        return 10 * len(self.resets)


# -- the gauges --------------------------------------------------------------------------------


def status(path, resident, mark):
    path.write_text(f"Name:\tx\nVmHWM:\t{mark:8d} kB\nVmRSS:\t{resident:8d} kB\nThreads:\t1\n")


def test_the_most_that_was_seen_is_the_peak_while_the_mark_stands(tmp_path):
    file = tmp_path / "status"
    status(file, 100, 900)
    gauge = ProcessGauge(file)
    gauge.begin()
    for resident in (300, 200):
        status(file, resident, 900)
        gauge.look()
    status(file, 150, 900)
    assert gauge.of == "rss"
    assert gauge.peak() == 300 * 1024


def test_a_mark_that_rose_is_the_peak(tmp_path):
    file = tmp_path / "status"
    status(file, 100, 900)
    gauge = ProcessGauge(file)
    gauge.begin()
    status(file, 150, 1000)  # it was higher in between than anybody saw
    assert gauge.peak() == 1000 * 1024
    gauge.begin()  # and is not the next stage's
    assert gauge.peak() == 150 * 1024


@pytest.mark.parametrize("text", [None, "", "VmRSS:\n", "VmRSS: many kB\n", "nothing of the kind"])
def test_a_system_that_does_not_tell_gives_nothing(tmp_path, text):
    file = tmp_path / "status"
    if text is not None:
        file.write_text(text)
    gauge = ProcessGauge(file)
    gauge.begin()
    gauge.look()
    assert (gauge.of, gauge.peak()) == ("", 0)


@linux
def test_memory_that_is_taken_and_given_back_within_a_stage_is_seen():
    size = 64 * MIB
    gauge = ProcessGauge()
    gauge.begin()
    before = gauge.peak()
    gauge.begin()
    with mmap.mmap(-1, size) as taken:
        for page in range(0, size, mmap.PAGESIZE):
            taken[page] = 1
        gauge.look()
    assert gauge.peak() >= before + size // 2  # other threads may give some back meanwhile


def test_a_device_is_asked_at_both_ends_of_a_stage_and_not_within():
    card = Card()
    gauge = DeviceGauge(card)
    gauge.begin()
    gauge.look()
    assert card.readings == [0]
    card.loaded.extend([Path("a"), Path("b")])
    assert gauge.peak() == 200
    gauge.begin()
    card.loaded.clear()  # given back within the stage: what it began with is more
    assert gauge.peak() == 200


def test_no_picture_fails_for_want_of_a_figure(bundle):
    class Mute(Card):
        def memory(self):
            if self.readings:
                raise DeviceError("the driver does not say")
            return super().memory()

    mute = Mute()
    (picture,) = drawn(Pipeline(bundle, mute), request(bundle))
    assert picture.peak_memory == PeakMemory(of="vram")

    class Gone(FakeBackend):
        def memory(self):
            raise DeviceError("there is no driver")

    assert isinstance(gauge_for(Gone()), ProcessGauge)


def test_what_computes_decides_what_is_counted():
    assert isinstance(gauge_for(Card()), DeviceGauge)
    assert isinstance(gauge_for(Counting()), CounterGauge)
    assert isinstance(gauge_for(FakeBackend()), ProcessGauge)
    # the processor has no memory that torch counts
    assert isinstance(gauge_for(TorchBackend("fp32")), ProcessGauge)

    class Silent(FakeBackend):
        def memory(self):
            return 0, 0

    assert isinstance(gauge_for(Silent()), ProcessGauge)


def test_torch_is_asked_about_its_own_card():
    asked = []

    class Cuda:
        def reset_peak_memory_stats(self, place):
            asked.append(("reset", place))

        def max_memory_reserved(self, place):
            asked.append(("peak", place))
            return 5

    backend = TorchBackend("fp32")
    backend._torch = type("Torch", (), {"cuda": Cuda()})
    backend.place = "cuda:1"
    gauge = gauge_for(backend)
    gauge.begin()
    gauge.look()
    assert (gauge.of, gauge.peak()) == ("torch", 5)
    assert asked == [("reset", "cuda:1"), ("peak", "cuda:1")]


# -- by stage ----------------------------------------------------------------------------------


def test_a_stage_that_is_entered_again_adds_seconds_and_keeps_the_higher_peak():
    ticks = iter([0.0, 1.0, 5.0, 7.0])
    peaks = iter([30, 20])

    class Given:
        of = "rss"

        def begin(self):
            pass

        def look(self):
            pass

        def peak(self):
            return next(peaks)

    usage = Usage(Given(), lambda: next(ticks))
    for _ in range(2):
        with usage.stage("load"):
            pass
    assert usage.seconds.load == 3.0
    assert usage.peak_memory == PeakMemory(of="rss", load=30)


def test_each_stage_of_a_picture_has_the_cards_use(bundle):
    card = Card()
    pipeline = Pipeline(bundle, card)
    first, second = drawn(pipeline, request(bundle, count=2))
    networks = 100 * len(card.loaded)
    assert networks > 0
    # all networks are loaded at the start, and then stay
    assert first.peak_memory == second.peak_memory
    assert first.peak_memory == PeakMemory(
        of="vram", load=networks, text=networks, denoise=networks, decode=networks
    )


def test_between_steps_no_card_is_asked(bundle):
    card = Card()
    readings = [
        len(card.readings)
        for event in Pipeline(bundle, card).generate(request(bundle, steps=8))
        if isinstance(event, Step)
    ]
    assert len(readings) == 8
    assert len(set(readings)) == 1


def test_a_library_that_counts_is_reset_for_each_stage(bundle):
    counting = Counting()
    (picture,) = drawn(Pipeline(bundle, counting), request(bundle))
    assert counting.resets == ["reset"] * len(STAGES)
    assert picture.peak_memory == PeakMemory(of="torch", load=10, text=20, denoise=30, decode=40)


def test_what_is_prepared_counts_for_the_picture(bundle):
    card = Card()
    pipeline = Pipeline(bundle, card)
    made = request(bundle)
    pipeline.prepare(made)
    loaded = 100 * len(card.loaded)
    card.loaded.clear()  # as if all had been given back since
    (picture,) = drawn(pipeline, made)
    assert picture.peak_memory.load == loaded
    assert picture.peak_memory.text == 0


@linux
def test_a_processors_picture_has_the_process(bundle):
    (picture,) = drawn(Pipeline(bundle, FakeBackend()), request(bundle))
    peaks = picture.peak_memory
    assert peaks.of == "rss"
    assert all(getattr(peaks, stage) > MIB for stage in STAGES)
