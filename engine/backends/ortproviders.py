"""Execution providers of ONNX Runtime: by which name, with which options, and what they share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "CPU",
    "CUDA",
    "PROVIDERS",
    "TENSORRT",
    "Provider",
    "cuda_provider",
    "provider_for",
    "tensorrt_provider",
]

CPU: Final = "CPUExecutionProvider"
CORE_ML: Final = "CoreMLExecutionProvider"
DIRECT_ML: Final = "DmlExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
# Provider -> what people call it.
PROVIDERS: Final[Mapping[str, str]] = {
    CPU: "a processor",
    CORE_ML: "Core ML",
    DIRECT_ML: "DirectML",
    CUDA: "an NVIDIA card",
    TENSORRT: "an NVIDIA card by TensorRT",
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


def cuda_provider(number: int, stream: int, *, graphs: bool, exact: bool) -> Provider:
    """Give the CUDA provider on card `number` and on a stream of ours (its address).

    graphs: runs are captured as CUDA graphs. exact: no TF32, which keeps ten bits of fp32.
    Options: onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.
    """
    return Provider(
        name=CUDA,
        device=f"cuda:{number}",
        options={
            "device_id": str(number),
            "user_compute_stream": str(stream),
            # All sizes are fixed and every buffer lives as long as its session.
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "cudnn_conv_use_max_workspace": "1",
            "prefer_nhwc": "1",  # tensor cores read pictures with their channels last
            "use_tf32": "0" if exact else "1",
            "enable_cuda_graph": "1" if graphs else "0",
        },
        static=True,
    )


def tensorrt_provider(number: int, stream: int, *, graphs: bool) -> Provider:
    """Give the TensorRT provider on card `number` and on a stream of ours (its address), for
    EP-context models: they were compiled before, so that nothing is built or kept here.

    graphs: runs are captured as one CUDA graph; the provider keeps one of a session, whatever
    `gpu_graph_id` says. Switches are True or False: ONNX Runtime's Python binding refuses 1 and 0
    of this provider alone. Options: onnxruntime.ai/docs/execution-providers, the page of TensorRT.
    """
    return Provider(
        name=TENSORRT,
        device=f"cuda:{number}",
        options={
            "device_id": str(number),
            "user_compute_stream": str(stream),
            "trt_cuda_graph_enable": str(graphs),
        },
    )
