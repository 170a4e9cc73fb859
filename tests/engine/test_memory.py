"""Want of memory is told from other failures, by the libraries' own words and by the libraries."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import safelight
from engine.errors import DeviceError, OutOfMemoryError
from engine.memory import free_memory, requested_bytes, room_for, smaller_size

POCKET = Path(safelight.__file__).with_name("models") / "pocket"

# Seen with OpenVINO 2026.4 and ONNX Runtime 1.32 under a limit, or published in their issues.
OPENVINO = """Exception from src/inference/src/cpp/core.cpp:117:
Check 'ptr' failed at src/plugins/intel_cpu/src/cpu_memory.cpp:257:
Failed to allocate 48244736 bytes of memory"""
ONNX_RUNTIME = """[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running
FusedMatMul node. Name:'n' Status Message: bfc_arena.cc:360 void* onnxruntime::BFCArena::
AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate memory for requested \
buffer of size 8589934592"""
SAID = [
    (OPENVINO, 48244736),
    ("Exception from src/core/src/runtime/allocator.cpp:79:\nstd::bad_alloc\n\n\n", 0),
    (ONNX_RUNTIME, 8589934592),
    ("Non-zero status code returned while running Conv node. Status Message: bad allocation", 0),
    ("[GPU] Exceeded max size of memory object allocation: requested 5368709120 bytes", 5368709120),
    ("[GPU] clFlush, error code: -5 CL_OUT_OF_RESOURCES", 0),
    ("CUDA failure 2: out of memory ; GPU=0", 0),
    ("could not allocate memory", 0),
]


@pytest.mark.parametrize(("text", "asked"), SAID)
def test_what_libraries_say(text, asked):
    assert requested_bytes(RuntimeError(text)) == asked
    with (
        pytest.raises(OutOfMemoryError, match=r"unet/model.onnx with x \[2, 3\]") as raised,
        room_for("A library", "unet/model.onnx", {"x": (2, 3)}),
    ):
        raise RuntimeError(text)
    assert raised.value.requested == asked
    assert isinstance(raised.value, DeviceError)
    assert (f"{asked / 2**20:,.0f} MiB" in str(raised.value)) == bool(asked)
    assert raised.value.hint


def test_pythons_own_error_needs_no_words():
    assert requested_bytes(MemoryError()) == 0


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Non-zero status code returned while running MatMul: wrong dimensions"),
        ValueError("a picture of 4 bytes"),
        RuntimeError("x" * 5000 + "out of memory"),  # no message is that long: not looked at
    ],
)
def test_everything_else_passes(error):
    assert requested_bytes(error) == -1
    with pytest.raises(type(error)) as raised, room_for("A library", "unet/model.onnx", {}):
        raise error
    assert raised.value is error


def test_an_error_of_ours_is_not_wrapped_again():
    inner = DeviceError("out of memory")
    with pytest.raises(DeviceError) as raised, room_for("A library", "a/model.onnx", {}):
        raise inner
    assert raised.value is inner


@pytest.mark.parametrize(
    ("size", "smaller"),
    [
        ((1024, 1024), (704, 704)),
        ((2048, 1024), (1408, 704)),
        ((512, 768), (320, 512)),
        ((128, 128), (64, 64)),
        ((127, 512), (127, 512)),
    ],
)
def test_a_smaller_size_has_at_most_half_of_the_pixels(size, smaller):
    assert smaller_size(*size) == smaller
    if smaller != size:
        assert 2 * smaller[0] * smaller[1] <= size[0] * size[1]


@pytest.mark.parametrize(
    ("meminfo", "room", "free"),
    [
        ("MemTotal: 9 kB\nMemAvailable:   2048 kB\n", float("inf"), 2 << 20),
        ("MemAvailable:   2048 kB\n", 4096.0, 4096.0),
        ("MemTotal: 9 kB\n", float("inf"), float("inf")),
        (None, 4096.0, 4096.0),
    ],
    ids=["free", "group", "untold", "elsewhere"],
)
def test_free_memory_is_what_the_system_and_the_group_leave(tmp_path, meminfo, room, free):
    class Groups:
        def memory(self):
            return room

    if meminfo is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc" / "meminfo").write_text(meminfo)
    assert free_memory(tmp_path, Groups()) == free


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a limit of address space is Linux")
@pytest.mark.parametrize("library", ["openvino", "onnxruntime"])
def test_the_libraries_own_failures_are_recognised(library):
    """pocket's decoder at 4096x4096 asks for gigabytes, in a process that may have 800 MB more."""
    program = f"""
import json, resource
from pathlib import Path
import numpy as np
from engine import OutOfMemoryError, choose
backend = choose("{library}", "fp32").backend
shapes = {{"latent_sample": (1, 4, 512, 512)}}
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (800 << 20),) * 2)
try:
    session = backend.load(Path({str(POCKET)!r}) / "vae_decoder" / "model.onnx", shapes)
    session.run({{name: np.zeros(shape, np.float32) for name, shape in shapes.items()}})
except OutOfMemoryError as error:
    print(json.dumps([str(error), error.requested]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    said, requested = json.loads(done.stdout)
    assert "has no memory for vae_decoder/model.onnx with latent_sample [1, 4, 512, 512]" in said
    assert requested == 0 or requested > 2**20
    assert done.stderr == ""  # nothing but the sentence
