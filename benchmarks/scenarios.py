"""The frozen table of what is measured. A changed row is a new version: old results stay apart.

Two results are comparable when their scenarios have the same name and hash; the hash covers every
field of the row, the architecture and the prompts themselves.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from benchmarks.canonical import canonical
from benchmarks.errors import unknown

__all__ = [
    "SCENARIOS",
    "PictureScenario",
    "Scenario",
    "VaultScenario",
    "find",
    "prompt_of",
    "seed_of",
]

GIB: Final = 1 << 30
SEEDS_A_TURN: Final = 64  # so that no two turns share a seed, whatever their batch
# Public words that `pocket` knows; any other model takes them as well. Colour times thing: each
# picture of a run has a prompt that no cache of encoded texts has seen.
COLOURS = ("red", "blue", "green", "yellow", "purple", "orange", "brown")
THINGS = ("apple", "cat face", "rocket", "guitar", "octopus", "umbrella", "car", "star", "fish")
PROMPTS: Mapping[str, tuple[str, ...]] = {
    "colours-1": tuple(f"{colour} {thing}" for thing in THINGS for colour in COLOURS)
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """What every row has. rounds: turns a configuration at least. memory: bytes that one
    configuration takes at its peak, measured or estimated (`benchmarks/README.md` says which).
    """

    name: str
    version: int = 1
    rounds: int
    memory: int

    @property
    def hash(self) -> str:
        """Give 16 hex digits that change with any field but `rounds` and `memory`."""
        fields = asdict(self) | {"prompts": PROMPTS.get(getattr(self, "prompts", ""), ())}
        for name in ("rounds", "memory", "building", "loads", "gate"):
            fields.pop(name, None)
        return hashlib.sha256(canonical(fields)).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureScenario(Scenario):
    """Pictures of one model. architecture: hash of its networks' public configuration; building:
    bytes of memory that making the model with random weights takes, 0 where it is shipped. gate:
    pictures compared with the reference. loads: times that loading is measured.
    """

    model: str
    architecture: str
    width: int
    height: int
    steps: int
    sampler: str
    schedule: str
    guidance_scale: float
    prompts: str = "colours-1"
    building: int = 0
    gate: int = 1
    loads: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class VaultScenario(Scenario):
    """A vault of `records` records without files; 0: pictures sealed and opened in memory."""

    records: int


_ROWS: Final[tuple[Scenario, ...]] = (
    PictureScenario(
        name="pocket-128",
        rounds=12,
        memory=GIB // 2,
        model="pocket",
        architecture="327b20dfc77155ef",
        width=128,
        height=128,
        steps=20,
        sampler="dpmpp_2m",
        schedule="linspace",
        guidance_scale=3.5,
        gate=4,
        loads=3,
    ),
    PictureScenario(
        name="sd15-512",
        rounds=2,
        memory=5 * GIB,
        model="sd15",
        architecture="c9288ddd5c75c1ca",
        width=512,
        height=512,
        steps=20,
        sampler="dpmpp_2m",
        schedule="karras",
        guidance_scale=7.5,
        building=10 * GIB,
    ),
    PictureScenario(
        name="sd21-768",
        rounds=2,
        memory=7 * GIB,
        model="sd21",
        architecture="0f0d8302ba750c03",
        width=768,
        height=768,
        steps=20,
        sampler="dpmpp_2m",
        schedule="karras",
        guidance_scale=7.5,
        building=10 * GIB,
    ),
    PictureScenario(
        name="sdxl-1024",
        rounds=2,
        memory=19 * GIB,
        model="sdxl",
        architecture="1f403d6e5cad38ba",
        width=1024,
        height=1024,
        steps=20,
        sampler="dpmpp_2m",
        schedule="karras",
        guidance_scale=5.0,
        building=16 * GIB,
    ),
    PictureScenario(
        name="turbo-512",
        rounds=10,
        memory=5 * GIB,
        model="turbo",
        architecture="0f0d8302ba750c03",
        width=512,
        height=512,
        steps=1,
        sampler="euler",
        schedule="trailing",
        guidance_scale=1.0,
        building=10 * GIB,
    ),
    VaultScenario(name="vault-seal", rounds=40, memory=GIB // 4, records=0),
    VaultScenario(name="vault-1000", rounds=10, memory=GIB // 4, records=1000),
    VaultScenario(name="vault-100000", rounds=10, memory=GIB // 2, records=100_000),
    VaultScenario(name="vault-1000000", rounds=5, memory=2 * GIB, records=1_000_000),
)
SCENARIOS: Final[Mapping[str, Scenario]] = {row.name: row for row in _ROWS}


def find(name: str) -> Scenario:
    """Give the row of this name; raises UsageError with the nearest one."""
    if name not in SCENARIOS:
        raise unknown("scenario", name, tuple(SCENARIOS))
    return SCENARIOS[name]


def prompt_of(scenario: PictureScenario, number: int) -> str:
    """Give the prompt of turn `number`; after all of them they come again."""
    prompts = PROMPTS[scenario.prompts]
    return prompts[number % len(prompts)]


def seed_of(number: int) -> int:
    """Give the seed of turn `number`; the warm-up's is -1."""
    return (number + 1) * SEEDS_A_TURN
