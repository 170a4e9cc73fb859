"""Importing the engine is cheap, and no part of it pulls in what only a back end needs."""

import subprocess
import sys

import pytest

import engine

LIBRARIES = {"openvino", "onnxruntime", "torch", "diffusers", "transformers", "onnx", "scipy"}


def loaded_by(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_the_package_loads_nothing():
    assert not {"numpy", "tokenizers", *LIBRARIES} & loaded_by("import engine; dir(engine)")


@pytest.mark.parametrize("name", engine.__all__)
def test_no_public_name_loads_a_runtime(name):
    assert not LIBRARIES & loaded_by(f"from engine import {name}")


@pytest.mark.parametrize("name", ["EngineError", "GenerationRequest", "choose"])
def test_errors_requests_and_the_choice_do_without_numpy(name):
    assert "numpy" not in loaded_by(f"from engine import {name}")


def test_a_back_end_module_does_not_load_its_library():
    for name in ("openvino", "onnxruntime", "fake"):
        assert not LIBRARIES & loaded_by(f"import engine.backends.{name}")


def test_without_any_library_the_choice_says_what_to_install():
    program = (
        "for name in ('openvino', 'onnxruntime'): sys.modules[name] = None\n"
        "from engine import DeviceError, choose\n"
        "try:\n"
        "    choose()\n"
        "except DeviceError as error:\n"
        "    assert 'safelight[cpu]' in error.hint, error.hint\n"
        "else:\n"
        "    raise SystemExit('it chose something')\n"
    )
    loaded_by(program)


def test_without_openvino_the_fallback_is_announced():
    program = (
        "sys.modules['openvino'] = None\n"
        "from engine import choose\n"
        "choice = choose('cpu')\n"
        "assert choice.backend.name == 'onnxruntime'\n"
        "assert 'OpenVINO is not installed' in choice.reason, choice.reason\n"
    )
    loaded_by(program)
