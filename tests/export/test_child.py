"""The child process: errors come back as they were, nothing of the surroundings leaks in."""

import os
import subprocess
import sys

import psutil
import pytest

from export import GraphError, Ingredients, MissingError
from export.child import OFFLINE, run_job, run_jobs


def quiet(stage: str, fraction: float) -> None:
    """Hear the progress and say nothing."""


def job(source, out, task: str = "build") -> dict[str, object]:
    return Ingredients(source=source).job() | {
        "task": task,
        "out": str(out),
        "hash_cache": None,
        "parts": ["unet"],
        "identify": False,
    }


def test_an_error_comes_back_as_what_it_was(tmp_path):
    with pytest.raises(MissingError, match="no file or folder 'gone'"):
        run_job(job(tmp_path / "gone", tmp_path), quiet)


def test_an_unexpected_error_is_one_sentence(tmp_path):
    with pytest.raises(GraphError, match="the exporter failed: KeyError"):
        run_job(job(tmp_path, tmp_path, task="dance"), quiet)


def test_the_folder_it_is_called_in_is_not_searched_for_modules(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    (tmp_path / "export").mkdir()
    (tmp_path / "export/__init__.py").write_text("raise SystemExit(9)")
    with pytest.raises(MissingError):
        run_job(job(tmp_path / "gone", tmp_path), quiet)


def test_a_killed_child_is_said_to_be_killed(tmp_path, tiny_checkpoint):
    def kill(stage: str, fraction: float) -> None:
        for child in psutil.Process().children():
            if "export.worker" in child.cmdline():
                child.kill()

    with pytest.raises(GraphError, match="was killed") as caught:
        run_job(job(tiny_checkpoint, tmp_path), kill)
    assert "memory" in caught.value.hint


@pytest.mark.skipif(os.name != "posix", reason="a limit of file sizes is POSIX")
def test_a_full_disk_is_one_sentence_with_its_status_and_leaves_nothing(tmp_path, tiny_checkpoint):
    # A file that may not grow beyond 50 kB fails half-way as one on a full disk does.
    words = ("-m", "safelight", "export", str(tiny_checkpoint), "--to", "x")
    ended = subprocess.run(
        ["sh", "-c", 'ulimit -f 100; exec "$@"', "sh", sys.executable, *words],
        env=os.environ | {"SAFELIGHT_HOME": str(tmp_path / "home")},
        capture_output=True,
        check=False,
        text=True,
    )
    assert ended.returncode == 8
    *_, said = ended.stderr.splitlines()
    assert said.startswith("safelight: ")
    assert said.endswith(": the export ended, and nothing of it was kept")
    assert "could not be written whole" in said or "File too large" in said
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]


def test_its_arguments_name_nothing_of_the_job(tmp_path, tiny_checkpoint):
    seen: list[list[str]] = []

    def look(stage: str, fraction: float) -> None:
        seen.extend(child.cmdline() for child in psutil.Process().children())
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run_job(job(tiny_checkpoint, tmp_path), look)
    assert seen
    assert not any(str(tmp_path) in word or "tiny" in word for line in seen for word in line)
    assert not [c for c in psutil.Process().children() if "export.worker" in c.cmdline()]


def test_it_is_told_to_stay_offline_before_it_imports():
    program = (
        "import huggingface_hub.constants as c; print(c.HF_HUB_OFFLINE, c.HF_HUB_DISABLE_TELEMETRY)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], env=OFFLINE, capture_output=True, check=True, text=True
    )
    assert out.stdout.split() == ["True", "True"]


def test_the_first_of_several_that_fails_ends_the_others(tmp_path, tiny_checkpoint):
    good = job(tiny_checkpoint, tmp_path)
    with pytest.raises(MissingError, match="no file or folder 'gone'"):
        run_jobs([good, job(tmp_path / "gone", tmp_path)], quiet)
    assert not [c for c in psutil.Process().children() if "export.worker" in c.cmdline()]
