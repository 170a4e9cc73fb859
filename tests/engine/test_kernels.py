"""The attention kernels against float64: head sizes, lengths, tails, strides, odd numbers."""

import math
import subprocess
from pathlib import Path

import numpy as np
import pytest

from engine.kernels import build as building
from engine.kernels import library
from engine.kernels.library import PATHS, Attention, Kernels, Tensor

FOUND, WHY = library.find()
needs_kernels = pytest.mark.skipif(FOUND is None, reason=f"no kernels: {WHY}")
BEST = FOUND.path if FOUND else 0
F32 = 1  # the path whose attention is in f32; the others' is in bf16


def bf16(values):
    """Round f32 to bf16 u16, to nearest."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def stored(path, values):
    return np.ascontiguousarray(values, np.float32) if path == F32 else bf16(values)


def wide(values):
    if values.dtype == np.float32:
        return values.copy()
    return (values.astype(np.uint32) << 16).view(np.float32)


def multiple(path, width):
    """Give what the path takes: heads in f32 are whole vectors."""
    return -(-width // 8) * 8 if path == F32 else width


def exact(q, k, v, scale):
    """softmax(q k^T scale) v of [batch, length, heads, width] in float64."""
    q, k, v = (wide(each).astype(np.float64).transpose(0, 2, 1, 3) for each in (q, k, v))
    scores = q @ k.transpose(0, 1, 3, 2) * scale
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3)


def tensor(array):
    batch, row, head, _ = (stride // array.itemsize for stride in array.strides)
    return Tensor(array.ctypes.data, batch, row, head)


def attended(kernels, q, k, v, scale, out=None):
    batches, queries, heads, width = q.shape
    if out is None:
        out = np.full_like(q, np.nan if q.dtype == np.float32 else 0x7FC0)
    sizes = Attention(
        batches=batches,
        heads=heads,
        queries=queries,
        keys=k.shape[1],
        width=width,
        scale=scale,
    )
    tensors = (tensor(q), tensor(k), tensor(v), tensor(out))
    kernels.attend(sizes, tensors, bf16=q.dtype != np.float32)
    return out


def drawn(path, draw, batches, queries, keys, heads, width, spread=1.0):
    shapes = [(batches, n, heads, width) for n in (queries, keys, keys)]
    q, k, v = (draw.standard_normal(shape) * spread for shape in shapes)
    return stored(path, q), stored(path, k), stored(path, v / spread)


def paths():
    return [pytest.param(path, id=PATHS[path].replace(" ", "-")) for path in (1, 2, 3)]


def kernels_on(path, threads=2):
    if path > BEST:
        pytest.skip(f"the processor has no {PATHS[path]}")
    return Kernels(path=path, threads=threads)


def near(got, q, k, v, scale):
    """Say whether a result is what it should be, to the digits that its numbers have.

    bf16 keeps 8 binary digits: weights and result are rounded to it, each by 2^-9 at most. Sums in
    f32 are rounded by some 2^-24 a step; what a score is off by, its weight is by that part of it.
    """
    scores = np.einsum("bqhd,bkhd->bhqk", np.abs(wide(q)), np.abs(wide(k)), optimize=True)
    allowed = 3e-7 * (3 + abs(scale) * scores.max()) if q.dtype == np.float32 else 2.0**-7
    off = np.abs(wide(got) - exact(q, k, v, scale)).max()
    return off < allowed * np.abs(wide(v)).max()


@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("width", [32, 40, 48, 63, 64, 72, 79, 80, 81, 96, 128, 160])
def test_each_head_size(path, width):
    width = multiple(path, width)
    q, k, v = drawn(path, np.random.default_rng(width), 2, 70, 150, 3, width)
    scale = width**-0.5
    got = attended(kernels_on(path), q, k, v, scale)
    assert near(got, q, k, v, scale)


@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("keys", [1, 2, 15, 16, 17, 31, 32, 33, 64, 77, 95, 96, 127, 129, 160, 300])
def test_each_tail_of_keys_and_queries(path, keys):
    q, k, v = drawn(path, np.random.default_rng(keys), 1, keys % 37 + 1, keys, 2, 40)
    got = attended(kernels_on(path), q, k, v, 0.2)
    assert near(got, q, k, v, 0.2)


@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("seed", range(40))
def test_any_sizes(path, seed):
    draw = np.random.default_rng(seed)
    sizes = [int(draw.integers(1, top)) for top in (3, 200, 400, 4)]
    width = multiple(path, int(draw.integers(1, 161)))
    q, k, v = drawn(path, draw, *sizes, width, spread=float(draw.choice([0.1, 1.0, 8.0])))
    scale = float(draw.choice([-1.0, 1.0])) * width**-0.5
    got = attended(kernels_on(path, threads=int(draw.integers(1, 6))), q, k, v, scale)
    assert near(got, q, k, v, scale)


@pytest.mark.parametrize("path", paths())
def test_large_scores_leave_floats_range_for_nobody(path):
    """The first chunk's largest score is kept on AMX: here later ones are higher by thousands."""
    q, k, v = drawn(path, np.random.default_rng(0), 1, 40, 200, 2, 40)
    rising = wide(k) + np.linspace(-90, 90, 200, dtype=np.float32)[:, None, None]
    k = stored(path, rising)
    q = stored(path, np.abs(wide(q)) + 1)
    for keys in (k, np.ascontiguousarray(k[:, ::-1])):
        got = attended(kernels_on(path), q, keys, v, 1.0)
        assert near(got, q, keys, v, 1.0)


@pytest.mark.parametrize("path", paths())
def test_padding_has_no_weight_where_all_scores_are_low(path):
    """A key that is not there would have score 0, far above these."""
    q, k, v = drawn(path, np.random.default_rng(1), 1, 20, 45, 1, 64)
    q, k = stored(path, np.full(q.shape, 4.0)), stored(path, -4.0 + 0.1 * wide(k))
    got = attended(kernels_on(path), q, k, v, 1.0)
    assert near(got, q, k, v, 1.0)


@pytest.mark.parametrize("path", paths())
def test_what_is_not_a_number_stays_where_it_belongs(path):
    q, k, v = drawn(path, np.random.default_rng(2), 1, 50, 100, 2, 40)
    clean = attended(kernels_on(path), q, k, v, 0.2)
    none, endless = stored(path, np.array([np.nan, np.inf]))
    q[0, 7, 0, 3] = none  # in one query: its row alone
    v[0, 9, 1, 5] = endless  # in one value: its column alone
    got = wide(attended(kernels_on(path), q, k, v, 0.2))
    assert np.isnan(got[0, 7, 0]).all()
    assert not np.isfinite(got[0, :, 1, 5]).any()
    got[0, 7, 0], got[0, :, 1, 5] = 0, 0
    right = wide(clean)
    right[0, 7, 0], right[0, :, 1, 5] = 0, 0
    assert np.isfinite(got).all()
    # On AMX, rows that lie beside one that left float's range are computed by other means.
    assert np.abs(got - right).max() <= (0 if path == F32 else 2.0**-7 * np.abs(right).max())
    k[0, 3, 0] = none  # in a key: every row of the head
    assert np.isnan(wide(attended(kernels_on(path), q, k, v, 0.2))[0, :, 0]).all()


@pytest.mark.parametrize("path", paths())
def test_heads_lie_where_strides_say_and_nothing_else_is_written(path):
    draw = np.random.default_rng(4)
    # q, k, v side by side in each row
    together = stored(path, draw.standard_normal((2, 67, 3, 5, 40)))
    q, k, v = (together[:, :, place] for place in range(3))
    room = np.full((2, 71, 7, 48), 0x1234, together.dtype)
    out = room[:, 2:69, 1:6, 4:44]
    attended(kernels_on(path), q, k, v, 0.16, out)
    assert near(out, q, k, v, 0.16)
    out[...] = 0x1234
    assert (room == 0x1234).all()


@pytest.mark.parametrize("path", paths())
def test_threads_change_no_bit(path):
    q, k, v = drawn(path, np.random.default_rng(5), 2, 600, 300, 3, 40)
    one, many = (attended(kernels_on(path, n), q, k, v, 0.2) for n in (1, 7))
    assert (one == many).all()


@pytest.mark.parametrize("path", paths())
def test_sizes_that_it_does_not_take_are_refused(path):
    kernels = kernels_on(path)
    q, k, v = drawn(path, np.random.default_rng(6), 1, 4, 4, 1, 168)
    with pytest.raises(ValueError, match="does not take"):
        attended(kernels, q, k, v, 1.0)
    with pytest.raises(ValueError, match="does not take"):
        attended(kernels, q[..., :40], k[:, :0, :, :40], v[:, :0, :, :40], 1.0)
    if path == F32:
        with pytest.raises(ValueError, match="does not take"):
            attended(kernels, q[..., :36], k[..., :36], v[..., :36], 1.0)


def test_a_library_that_is_none_is_a_reason_and_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "FILE", tmp_path / "missing.so")
    assert library.find() == (
        None,
        "not built: no C compiler was there when the package was installed",
    )
    (tmp_path / "broken.so").write_bytes(b"not a library")
    monkeypatch.setattr(library, "FILE", tmp_path / "broken.so")
    found, why = library.find()
    assert found is None
    assert "broken.so" in why


@needs_kernels
def test_another_versions_library_is_not_used(monkeypatch):
    monkeypatch.setattr(library, "VERSION", library.VERSION + 1)
    found, why = library.find()
    assert found is None
    assert "is needed" in why


def test_a_compiler_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "false")
    assert "false failed" in building.build(tmp_path / "kernels.so")
    monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))
    assert "no-such-compiler failed" in building.build(tmp_path / "kernels.so")
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert building.build(tmp_path / "kernels.so") == "no C compiler (cc, gcc or clang)"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(FOUND is None or not FOUND.has_bf16, reason=f"no kernels in bf16: {WHY}")
@pytest.mark.slow
def test_no_byte_outside_is_touched_nor_undefined(tmp_path):
    """The fuzz in C, under AddressSanitizer and UndefinedBehaviorSanitizer, in a process."""
    sanitized = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
    program = tmp_path / "fuzz"
    source = Path(__file__).with_name("kernel_fuzz.c")
    why = building.build(program, extra=sanitized, program=source, like="blocks.c")
    if why:
        pytest.skip(f"no sanitizers: {why}")
    done = subprocess.run([program, "400"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "400 attentions" in done.stdout


def test_the_parabola_is_as_good_as_its_comment_says():
    """The header's constants, read from it: within 0.18 % of 2^f, and right on average."""
    text = (building.FOLDER / "attention.h").read_text("utf-8")
    found = [float(part.split("f)")[0]) for part in text.split("CUT * ")[1:]]
    f = np.linspace(0, 1, 10001)
    ratio = (found[0] * f**2 + found[1] * f + found[2]) / 2**f
    assert np.abs(ratio - 1).max() < 0.0018
    assert abs(ratio.mean() - 1) < 1e-4
    assert math.isclose(1 + 2**-8 / (2 * math.log(2)), 1.002818, abs_tol=1e-6)
