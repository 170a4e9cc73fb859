"""From the shell: `--help`, imports, the cold command to a sealed picture, installed size.

usage: python -m benchmarks.startup PYTHON   (the interpreter of an installation without torch)
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import interleave, save, summary

__all__ = ["main"]

ROUNDS = 9
# What lies in an empty environment: the installer, which nothing of ours imports.
_EMPTY = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence")


def command(python: str, home: Path, *words: str) -> Callable[[], None]:
    """Give a call that runs a child to its end and insists on success."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "SAFELIGHT_HOME": str(home),
        "SAFELIGHT_PASSPHRASE_FILE": str(home / "passphrase"),
    }

    def run() -> None:
        subprocess.run([python, *words], env=env, check=True, capture_output=True)

    return run


def installed(python: str) -> dict[str, float]:
    """Give the megabytes that an installation adds to an empty environment, and its largest."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = Path(subprocess.check_output([python, "-c", code], text=True).strip())
    sizes = {
        entry.name: sum(f.stat().st_size for f in [entry, *entry.rglob("*")] if f.is_file())
        for entry in site.iterdir()
        if not entry.name.startswith(_EMPTY)
    }
    largest = sorted(sizes, key=lambda name: -sizes[name])[:6]
    return {"all": round(sum(sizes.values()) / 1e6, 1)} | {
        name: round(sizes[name] / 1e6, 1) for name in largest
    }


def main() -> None:
    """Measure and save benchmarks/results/startup.json."""
    python = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    home = Path("startup-work").absolute()
    home.mkdir()
    (home / "passphrase").write_text("a passphrase of a benchmark\n")
    command(python, home, "-m", "safelight", "init", "--recovery-file", str(home / "phrase"))()
    calls: dict[str, Callable[[], object]] = {
        "python -c pass": command(python, home, "-c", "pass"),
        "safelight --help": command(python, home, "-m", "safelight", "--help"),
        "import engine": command(python, home, "-c", "import engine"),
        "import vault": command(python, home, "-c", "import vault"),
        "safelight ls": command(python, home, "-m", "safelight", "ls"),
        "safelight generate": command(python, home, "-m", "safelight", "generate", "red apple"),
    }
    times = interleave(calls, rounds=ROUNDS)
    results: dict[str, Any] = {
        "seconds": {name: summary(each) for name, each in times.items()},
        "installed megabytes": installed(python),
    }
    shutil.rmtree(home)
    path = save("startup", "child processes from the shell; generate = 20 steps, sealed", results)
    sys.stdout.write(f"{path}\n{results}\n")


if __name__ == "__main__":
    main()
