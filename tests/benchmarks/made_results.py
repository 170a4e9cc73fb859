"""Results as `bench run` would make them, from samples that a test gives; nothing is measured."""

import numpy as np

from benchmarks.document import (
    Configuration,
    Environment,
    Machine,
    Quality,
    Result,
    ScenarioRow,
    figure_of,
)
from benchmarks.scenarios import find

__all__ = ["machine", "quality", "result", "samples"]

QUIET = Environment(
    load=0.1,
    clocks=(3000.0, 3000.0),
    governor="performance",
    temperature=50.0,
    throttled=0,
    stolen=0.0,
    cores_limit=None,
    memory_free=8 << 30,
    on_battery=False,
)


def samples(middle, spread, count=40, seed=0):
    """Give seconds around `middle`, with this coefficient of variation."""
    draw = np.random.default_rng(seed)
    return [float(each) for each in middle * (1 + spread * draw.standard_normal(count))]


def machine(name="0123456789abcdef", cpu="A Processor"):
    return Machine(
        id=name,
        cpu=cpu,
        cpu_family_model="6.1",
        cores=2,
        instructions=("avx2",),
        memory_gb=16.0,
        gpus=(),
        gpu_driver="",
        system="Linux",
        kernel="6.1",
        python="3.11.7",
        libraries={"numpy": "2.4.6"},
    )


def quality(psnr, *, passed):
    return Quality(
        psnr=psnr,
        ssim=0.99,
        least_psnr=32.0,
        least_ssim=0.95,
        pictures=4,
        reference="onnxruntime fp32",
        passed=passed,
    )


def result(stages, *, scenario="pocket-128", name="openvino bf16 batch 1", like=None, **more):
    """Give a result of one configuration with these samples by stage."""
    row = find(scenario)
    pictures = stages.get("picture")
    configuration = Configuration(
        name=name,
        kind="vault" if scenario.startswith("vault") else "safelight",
        backend="openvino",
        device="CPU",
        precision="bf16",
        stages={stage: figure_of(seconds) for stage, seconds in stages.items()},
        pictures_an_hour=3600 / float(np.median(pictures)) if pictures else None,
        peak_memory=300 << 20,
        quality=like,
    )
    fields = {
        "scenario": ScenarioRow(name=row.name, version=row.version, hash=row.hash),
        "date": "2026-11-29",
        "safelight": "0.1.0",
        "partial": False,
        "machine": machine(),
        "before": QUIET,
        "after": QUIET,
        "configurations": (configuration,),
    }
    return Result(**(fields | more))
