"""The unet in 8-bit integers for OpenVINO: NNCF's post-training quantisation, on real trajectories.

Approximate, and said to be: the report holds the PSNR of held-out pictures against the fp32 path,
and a form below the bound is not kept. Text encoders and VAE stay as they are: they take little of
the time, and the VAE's errors are seen at once.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.backends import Array
from engine.bundle import Bundle
from engine.derived import Shape
from engine.errors import RequestError
from export.errors import GraphError
from export.targets import Progress
from export.targets.trajectories import CALIBRATION, HELD_OUT, SEEDS_EACH, Recorder, Replaced, draw
from export.targets.trajectories import psnr as psnr_of

__all__ = ["BOUND", "NEEDED", "PRECISION", "build", "device", "quantise", "versions"]

PRECISION = "int8"
NEEDED: Mapping[str, str] = {
    "openvino": "pip install 'safelight[cpu]'",
    "nncf": "pip install 'safelight[int8]'",
}
# dB of the held-out pictures' mean squared error together: a difference that takes a close look.
BOUND = 30.0
KEPT = 5  # runs of the network that are kept of each calibration picture, over its whole length
# Of the progress: trajectories, quantisation, pictures in fp32, in int8, in bf16.
SHARES = (0.25, 0.25, 0.2, 0.15, 0.15)


def device() -> str:
    """Name the plugin: the form is the same for every processor."""
    return "CPU"


def versions() -> Mapping[str, str]:
    """Name what reads the form, for its key; NNCF's version stands in the report."""
    from export.targets.installed import installed

    return installed("openvino")


def build(
    bundle: Bundle, out: Path, *, shapes: tuple[Shape, ...], progress: Progress
) -> dict[str, object]:
    """Write `unet/model.xml` and `.bin`, quantised, with free sizes; gives the report.

    psnr: dB of all held-out pictures together, psnr_worst: of the worst. Raises RequestError for
    shapes, GraphError where NNCF fails.
    """
    from engine.backends.openvino import OpenVinoBackend

    if shapes:
        raise RequestError("'int8' is made for free sizes", hint="--shape goes with openvino")
    exact = OpenVinoBackend("fp32", None)
    shares = iter(_spans())

    def told(stage: str) -> "_Told":
        return _Told(stage, next(shares), progress)

    inputs = _inputs(bundle, exact, told("calibration trajectories"))
    step = told("quantise the unet")
    step(0.0)
    files = {"unet": out / "unet" / "model.xml"}
    quantise(bundle.model("unet"), files["unet"], inputs)
    wanted = draw(bundle, exact, HELD_OUT, SEEDS_EACH, told("fp32 pictures"))
    int8 = OpenVinoBackend("int8", None)
    got = draw(
        bundle, Replaced(inner=int8, files=files), HELD_OUT, SEEDS_EACH, told("int8 pictures")
    )
    each = [psnr_of(a, b) for a, b in zip(got, wanted, strict=True)]
    report: dict[str, object] = {
        "psnr": round(_together(each), 2),
        "psnr_worst": round(min(each), 2),
        "pictures": len(each),
        "size": f"{wanted[0].shape[1]}x{wanted[0].shape[0]}",
        "calibration_runs": len(inputs),
        "components": ["unet"],
        "rest_computes_in": int8.hint,
        "nncf": version("nncf"),
    }
    if "BF16" in exact.capabilities:
        # The yardstick: what the processor's fast exact path loses on the same pictures.
        fast = OpenVinoBackend("bf16", None)
        bf16 = draw(bundle, fast, HELD_OUT, SEEDS_EACH, told("bf16 pictures"))
        report["psnr_bf16"] = round(
            _together([psnr_of(a, b) for a, b in zip(bf16, wanted, strict=True)]), 2
        )
    return report


def quantise(model: Path, out: Path, inputs: list[dict[str, Array]]) -> None:
    """Quantise the graph in `model` on these inputs and save it as IR. Raises GraphError.

    Linear layers get 8-bit weights only, convolutions weights and activations, but for the first
    and the last of them; attention stays as it is.
    """
    from engine.backends.openvino import runtime

    ov = runtime()  # first: it forbids the import of openvino_telemetry, which NNCF sends by
    import nncf  # pyright: ignore[reportMissingImports] - of the `int8` extra

    graph = ov.Core().read_model(model)
    ends = _ends(graph)
    try:
        light = nncf.compress_weights(
            graph,
            mode=nncf.CompressWeightsMode.INT8_SYM,
            ignored_scope=nncf.IgnoredScope(types=["Convolution"], validate=False),
        )
        quantised: Any = nncf.quantize(
            light,
            nncf.Dataset(inputs),
            subset_size=len(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=ends, types=["MatMul"], validate=False),
        )
    except Exception as error:  # the library's classes have no root of their own
        text = " ".join(str(error).split())[:200]
        raise GraphError(f"NNCF failed on {model.parent.name}: {text}") from error
    out.parent.mkdir(parents=True)
    ov.save_model(quantised, out, compress_to_fp16=False)


def _ends(graph: Any) -> list[str]:
    """Name the first and the last convolution: latents come in and predictions go out by them."""
    names = [
        node.get_friendly_name()
        for node in graph.get_ordered_ops()
        if node.get_type_name() == "Convolution"
    ]
    return names[:1] + names[1:][-1:]


def _inputs(bundle: Bundle, exact: Any, told: "_Told") -> list[dict[str, Array]]:
    """Record what the unet is given along the calibration pictures."""
    every = max(1, bundle.manifest.defaults.steps // KEPT)
    recorder = Recorder(inner=exact, every=every)
    draw(bundle, recorder, CALIBRATION, 1, told)
    return recorder.kept["unet"]


class _Told:
    """Relays the fraction of one stage as a fraction of all of them."""

    def __init__(self, stage: str, span: tuple[float, float], progress: Progress) -> None:
        self._stage = stage
        self._span = span
        self._progress = progress

    def __call__(self, fraction: float) -> None:
        start, length = self._span
        self._progress(self._stage, start + fraction * length)


def _spans() -> list[tuple[float, float]]:
    starts = [sum(SHARES[:place]) for place in range(len(SHARES))]
    return list(zip(starts, SHARES, strict=True))


def _together(each: list[float]) -> float:
    """Give the PSNR of several pictures' mean squared errors together, dB."""
    from math import log10

    return -10 * log10(sum(10 ** (-value / 10) for value in each) / len(each))
