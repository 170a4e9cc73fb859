"""The model of a scenario: shipped, on the shelf, or the public architecture at random."""

import shutil
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.canonical import canonical
from benchmarks.errors import MissingError, RoomError
from benchmarks.scenarios import GIB, PictureScenario
from safelight.exits import UsageError
from safelight.shelf import Shelf

if TYPE_CHECKING:
    from engine import Bundle

__all__ = ["Model", "architecture_hash", "find_model", "random_folder"]

CONFIG_BYTES: Final = 1 << 20
DISK: Final = 12 * GIB  # a random checkpoint and its bundle, XL's being the largest
# What decides about the unet's work, and what diffusers takes where a configuration is silent.
SHAPE: Final[Mapping[str, Any]] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": None,
    "down_block_types": None,
    "up_block_types": None,
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "use_linear_projection": False,
    "addition_embed_type": None,
}


class Model(NamedTuple):
    """A bundle on disk; random: its weights draw nothing."""

    path: Path
    random: bool


def architecture_hash(config: Mapping[str, Any]) -> str:
    """Give 16 hex digits of what a unet's configuration says about its work."""
    shape = {name: config.get(name, usual) for name, usual in SHAPE.items()}
    return sha256(canonical(shape)).hexdigest()[:16]


def random_folder(cache: Path, scenario: PictureScenario) -> Path:
    """Give the folder of a scenario's model with random weights."""
    return cache / "bench" / f"{scenario.model}-random"


def find_model(
    scenario: PictureScenario,
    shelf: Shelf,
    cache: Path,
    *,
    name: str = "",
    memory: int,
    say: Callable[[str], None],
) -> Model:
    """Find the scenario's model, or make one with random weights.

    name: of a bundle on the shelf that must be it; empty: the scenario's own name is looked for
    first. memory: bytes that are free. Raises UsageError for a bundle of another architecture,
    RoomError and MissingError where one cannot be made.
    """
    wanted = name or scenario.model
    on_shelf = {entry.name for entry in shelf.entries()}
    if name or wanted in on_shelf:
        bundle = shelf.open(wanted)
        if _architecture(bundle) == scenario.architecture:
            return Model(bundle.path, random=False)
        if name:
            raise UsageError(
                f"'{name}' has another architecture than scenario {scenario.name} measures",
                hint="leave --model out: random weights of the public architecture are measured",
            )
    folder = random_folder(cache, scenario)
    if not folder.exists():
        _make(scenario, folder, memory, say)
    return Model(folder, random=True)


def _architecture(bundle: "Bundle") -> str:
    from engine.jsonfile import read_json

    return architecture_hash(read_json(bundle.path / "unet" / "config.json", CONFIG_BYTES))


def _make(scenario: PictureScenario, folder: Path, memory: int, say: Callable[[str], None]) -> None:
    if missing := [name for name in ("torch", "diffusers", "onnx") if find_spec(name) is None]:
        raise MissingError(
            f"there is no model '{scenario.model}', and making one needs {', '.join(missing)}",
            hint="pip install 'safelight[export]', or name a model of yours with --model",
        )
    if memory < scenario.building:
        raise RoomError(
            f"making the model of {scenario.name} needs {scenario.building / GIB:.0f} GiB of memory"
            f" once; {memory / GIB:.1f} GiB are free",
            hint="close other programs, or name a model of yours with --model",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < DISK:
        raise RoomError(
            f"making the model of {scenario.name} needs {DISK / GIB:.0f} GiB of disk in the cache;"
            f" {free / GIB:.1f} GiB are free",
            hint="SAFELIGHT_HOME may lie on another disk",
        )
    from export import Ingredients, export_checkpoint
    from export.architectures import PUBLIC, write_random_checkpoint

    checkpoint = folder.with_name(f"{scenario.model}-checkpoint")
    shutil.rmtree(checkpoint, ignore_errors=True)
    say(f"making {scenario.model} with random weights, once; this takes minutes")
    try:
        write_random_checkpoint(checkpoint, PUBLIC[scenario.model], seed=0)
        export_checkpoint(
            Ingredients(source=checkpoint),
            folder,
            name=folder.name,
            licence=None,
            progress=lambda stage, _share: say(f"  {stage}"),
        )
    finally:
        shutil.rmtree(checkpoint, ignore_errors=True)
