"""What a saved baseline says of the machine: nothing that names it."""

from pathlib import Path
from typing import Any, Final

import pytest

from engine import Bundle

__all__ = [
    "POCKET",
    "bundle",
    "pytest_benchmark_update_commit_info",
    "pytest_benchmark_update_machine_info",
]

POCKET: Final = Path(__file__).parents[2] / "safelight" / "models" / "pocket"
# Models and versions; node, release and what a builder put into strings stay out.
KEPT: Final = ("processor", "machine", "python_implementation", "python_version", "system")
CPU: Final = ("arch", "bits", "brand_raw", "count", "family", "model")


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """Keep what says how fast a machine is, and nothing that says whose it is."""
    cpu = machine_info.get("cpu", {})
    kept = {name: machine_info[name] for name in KEPT if name in machine_info}
    machine_info.clear()
    machine_info |= kept | {"cpu": {name: cpu[name] for name in CPU if name in cpu}}


def pytest_benchmark_update_commit_info(config: Any, commit_info: dict[str, Any]) -> None:
    """Keep the commit and nothing of who made it or of the folder that it lies in."""
    kept = {name: commit_info.get(name) for name in ("id", "dirty")}
    commit_info.clear()
    commit_info |= kept


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """Open the model in the box."""
    return Bundle.open(POCKET, hash_cache=None)
