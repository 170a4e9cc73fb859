"""The result document: what it may hold, how it is read and written. `result.schema.json` beside
this file is made of these classes (`python -m benchmarks.document`), and a test compares them.

Nothing else than these fields is accepted, and no text that could be a path: a result says nothing
of who made it. `benchmarks.privacy` looks for the names of this machine before one is written.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmarks.errors import ResultError
from benchmarks.spread import NOISY, outliers, quantile, variation

__all__ = [
    "Configuration",
    "Environment",
    "Figure",
    "Machine",
    "Quality",
    "Result",
    "ScenarioRow",
    "Signature",
    "figure_of",
    "read_result",
    "schema",
    "text_of",
]

FORMAT: Final = "safelight-bench/1"
SCHEMA: Final = Path(__file__).with_name("result.schema.json")
MOST_BYTES: Final = 8 << 20  # of a result that is read; a long run writes 200 kB
MOST_SAMPLES: Final = 20_000

# Without slashes of either kind: no path, no URL. Without @: no address.
Text = Annotated[str, Field(max_length=200, pattern=r"^[^/\\@\x00-\x1f]*$")]
Name = Annotated[str, Field(max_length=80, pattern=r"^[A-Za-z0-9 ._,:+%()=-]*$")]
Hex = Annotated[str, Field(max_length=128, pattern=r"^[0-9a-f]*$")]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**53)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(_Part):
    """Seconds of one stage: each call in its order, and what they say together.

    variation: coefficient of variation of all samples; noisy: it is over 2.5 %. outliers: samples
    whose modified Z-score is over 3.5; none is left out. bytes: that one call works on, or 0.
    """

    p50: Seconds
    p90: Seconds
    p99: Seconds
    variation: Number
    outliers: Count
    noisy: bool
    bytes: Count = 0
    samples: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=MOST_SAMPLES)]


class Quality(_Part):
    """The worst of the pictures compared with fp32's: dB and SSIM, and what had to be reached."""

    psnr: Number
    ssim: Number
    least_psnr: Number
    least_ssim: Number
    pictures: Count
    reference: Name
    passed: bool


class Configuration(_Part):
    """One way to do the scenario. batch: pictures of one request. Amounts are bytes; None: the
    machine does not tell. note: what a reader has to know of it.
    """

    name: Name
    kind: Literal["safelight", "peer", "vault"] = "safelight"
    backend: Name = ""
    device: Text = ""
    precision: Name = ""
    batch: Annotated[int, Field(ge=1, le=10_000)] = 1
    threads: Count = 0
    libraries: Mapping[Name, Name] = {}
    stages: Mapping[Name, Figure]
    pictures_an_hour: Number | None = None
    peak_memory: Count | None = None
    peak_gpu_memory: Count | None = None
    joules_a_picture: Number | None = None
    cache_bytes: Count | None = None
    quality: Quality | None = None
    note: Text = ""


class ScenarioRow(_Part):
    """Which row of the frozen table this is. random_weights: the model's public architecture with
    weights that draw nothing.
    """

    name: Name
    version: Count
    hash: Hex
    random_weights: bool = False
    bundle_bytes: Count = 0


class Machine(_Part):
    """What computed. id: keyed by a secret of this installation, so that only its owner can tell
    that two results come from one machine by anything but their equal ids.
    """

    id: Hex
    cpu: Text
    cpu_family_model: Text
    cores: Count
    instructions: tuple[Name, ...]
    memory_gb: Number
    gpus: tuple[Text, ...]
    gpu_driver: Text
    system: Text
    kernel: Text
    python: Name
    libraries: Mapping[Name, Name]


class Environment(_Part):
    """The surroundings at one moment; None: the machine does not tell.

    load: of one minute. clocks: MHz, of each core. temperature: degrees Celsius, of the warmest
    sensor. throttled: events counted by the processor and the control group so far. stolen: seconds
    of all cores that a hypervisor gave to others so far. cores_limit, memory_free: what control
    groups leave.
    """

    load: Number
    clocks: tuple[Number, ...]
    governor: Name
    temperature: Number | None
    throttled: Count | None
    stolen: Number | None
    cores_limit: Number | None
    memory_free: Count
    on_battery: bool | None


class Signature(_Part):
    """Ed25519 over everything else, as canonical JSON."""

    algorithm: Literal["ed25519"] = "ed25519"
    public_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    value: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class Result(_Part):
    """One run of one scenario. partial: it was stopped; what is there was measured to its end.

    skipped: what was asked for and could not be measured, and why. warnings: what disturbed it.
    """

    format: Literal["safelight-bench/1"] = FORMAT
    scenario: ScenarioRow
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    safelight: Name
    partial: bool
    machine: Machine
    before: Environment
    after: Environment
    warnings: tuple[Text, ...] = ()
    configurations: Annotated[tuple[Configuration, ...], Field(max_length=200)]
    skipped: Mapping[Name, Text] = {}
    signature: Signature | None = None

    def configuration(self, name: str) -> Configuration | None:
        """Give the configuration of this name, or None."""
        return next((each for each in self.configurations if each.name == name), None)


def figure_of(samples: Sequence[float], *, size: int = 0) -> Figure:
    """Make a figure of the seconds of at least one call; size: bytes that a call works on."""
    kept = tuple(round(each, 7) for each in samples)[:MOST_SAMPLES]
    spread = variation(kept)
    return Figure(
        p50=round(quantile(kept, 0.5), 7),
        p90=round(quantile(kept, 0.9), 7),
        p99=round(quantile(kept, 0.99), 7),
        variation=round(spread, 4),
        outliers=sum(outliers(kept)),
        noisy=spread > NOISY,
        bytes=size,
        samples=kept,
    )


def read_result(path: Path) -> Result:
    """Read and check a result; raises ResultError with one sentence about what is wrong."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ResultError(f"{path.name} cannot be read: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise ResultError(f"{path.name} has more than {MOST_BYTES} bytes: it is no result")
    try:
        return Result.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(each) for each in first["loc"]) or "the file"
        raise ResultError(
            f"{path.name} is no result of `bench run`: {place}: {first['msg']}",
            hint=f"the form of version {FORMAT} is in benchmarks/result.schema.json",
        ) from error


def text_of(result: Result) -> str:
    """Give the document as JSON for a file, with samples in one line each."""
    return "".join(_written(result.model_dump(mode="json"), 0)) + "\n"


def schema() -> dict[str, Any]:
    """Give the JSON Schema (2020-12) of a result."""
    found = Result.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _written(value: Any, depth: int) -> Iterator[str]:
    if not isinstance(value, dict) or not value:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield "["
            for place, each in enumerate(value):
                yield ("," if place else "") + "\n" + "  " * (depth + 1)
                yield from _written(each, depth + 1)
            yield "\n" + "  " * depth + "]"
            return
        yield json.dumps(value, ensure_ascii=False)
        return
    yield "{"
    for place, (name, each) in enumerate(value.items()):
        yield ("," if place else "") + "\n" + "  " * (depth + 1) + json.dumps(name) + ": "
        yield from _written(each, depth + 1)
    yield "\n" + "  " * depth + "}"


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(schema(), indent=1) + "\n", "utf-8")
    sys.stdout.write(f"{SCHEMA.name}\n")
