"""A virtual environment for each peer, made once, in bounded time; or why there is none."""

import shutil
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.errors import MissingError

__all__ = ["python_of"]

READY: Final = "ready.txt"  # names what was installed to its end
SAID: Final = 200  # characters of an installer's last line that are repeated


def python_of(folder: Path, install: Sequence[str], limit: float) -> Path:
    """Give the interpreter of the environment in `folder` with these requirements installed.

    limit: seconds for the installation, which needs the package index. Raises MissingError with the
    installer's own last words; a failed environment is removed, and tried again the next time.
    """
    python, ready = folder / "bin" / "python", folder / READY
    wanted = "\n".join(install)
    if ready.is_file() and ready.read_text("utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *install]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        shutil.rmtree(folder, ignore_errors=True)
        raise MissingError(
            f"its installation took longer than {limit:.0f} seconds",
            hint="--install-limit gives it more",
        ) from None
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or [
            "no reason given"
        ]
        raise MissingError(f"it cannot be installed: {lines[-1].strip()[:SAID]}")
    ready.write_text(wanted, "utf-8")
    return python
