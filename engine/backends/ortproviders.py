"""Execution providers of ONNX Runtime: by which name, with which options, and what they share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["CPU", "PROVIDERS", "Provider", "provider_for"]

CPU: Final = "CPUExecutionProvider"
CORE_ML: Final = "CoreMLExecutionProvider"
DIRECT_ML: Final = "DmlExecutionProvider"
# Provider -> what people call it.
PROVIDERS: Final[Mapping[str, str]] = {
    CPU: "a processor",
    CORE_ML: "Core ML",
    DIRECT_ML: "DirectML",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Provider:
    """One execution provider as it is asked for.

    name: ONNX Runtime's own. device: how the pictures' records name it. options: the provider's.
    shares: it leaves operators that it lacks to the processor, and is of no use otherwise; the
    others must take the whole graph. static: sizes are written into the graph before it sees it.
    """

    name: str = CPU
    device: str = "CPU"
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    shares: bool = False
    static: bool = False


def provider_for(kind: str, which: str) -> Provider:
    """Give the provider for a kind of device: onnxruntime, coreml or directml; which: its number.

    Options: onnxruntime.ai/docs/execution-providers, the pages of Core ML and DirectML.
    """
    if kind == "coreml":
        # The older format, NeuralNetwork, computes in fp16 on its own.
        return Provider(
            name=CORE_ML,
            device="CoreML",
            options={"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"},
            shares=True,
            static=True,
        )
    if kind == "directml":
        number = which or "0"
        return Provider(
            name=DIRECT_ML, device=f"DirectML:{number}", options={"device_id": number}, static=True
        )
    return Provider()
