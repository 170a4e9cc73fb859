"""TensorRT and the CUDA runtime, stood in for on the host: memory is numpy's, a plan is the path of
an ONNX graph, and what a plan computes ONNX Runtime computes. What is captured is run at launch.
"""

import ctypes
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime

from engine.onnxheader import read_onnx_header

__all__ = ["Cuda", "TensorRt"]

GOOD = 0


class Cuda:
    """cuda.bindings.runtime, as far as CudaDevice calls it. Calls are counted by name."""

    cudaStreamNonBlocking = 1  # noqa: N815  CUDA's names
    cudaEventDisableTiming = 2  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(  # noqa: N815
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
    )
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeRelaxed=2)  # noqa: N815

    def __init__(self):
        self.memory = {}
        self.counts = {}
        self.capturing = None

    def __getattr__(self, name):
        special = getattr(type(self), f"do_{name}", None)
        if special is None and not name.startswith("cuda"):
            raise AttributeError(name)

        def call(*arguments):
            self.counts[name] = self.counts.get(name, 0) + 1
            return (GOOD, *(special(self, *arguments) if special else ()))

        return call

    def do_cudaGetDeviceCount(self):  # noqa: N802
        return (1,)

    def do_cudaGetDeviceProperties(self, number):  # noqa: N802
        return (SimpleNamespace(name=b"stand-in", major=9, minor=0),)

    def do_cudaDriverGetVersion(self):  # noqa: N802
        return (13020,)

    def do_cudaStreamCreateWithFlags(self, flags):  # noqa: N802
        return (77,)

    def do_cudaEventCreateWithFlags(self, flags):  # noqa: N802
        return ("event",)

    def do_cudaMemGetInfo(self):  # noqa: N802
        return (5, 9)

    def do_cudaMalloc(self, size):  # noqa: N802
        buffer = np.zeros(size, np.uint8)
        self.memory[buffer.ctypes.data] = buffer
        return (buffer.ctypes.data,)

    def do_cudaFree(self, address):  # noqa: N802
        del self.memory[address]
        return ()

    def do_cudaMemcpyAsync(self, to, source, size, kind, stream):  # noqa: N802
        assert self.capturing is None
        assert (to if kind == 1 else source) in self.memory
        ctypes.memmove(to, source, size)
        return ()

    def do_cudaStreamBeginCapture(self, stream, mode):  # noqa: N802
        self.capturing = []
        return ()

    def do_cudaStreamEndCapture(self, stream):  # noqa: N802
        graph, self.capturing = self.capturing, None
        return (graph,)

    def do_cudaGraphInstantiate(self, graph, flags):  # noqa: N802
        return (tuple(graph),)

    def do_cudaGraphLaunch(self, graph, stream):  # noqa: N802
        for work in graph:
            work()
        return ()


class TensorRt:
    """The package `tensorrt`. fits: shapes that a plan takes; foreign: it is of another card."""

    __version__ = "11.4"
    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    ILogger = type("ILogger", (), {"__init__": lambda self: None})

    def __init__(self, cuda, *, foreign=False, most=10**9, broken=False):
        self.cuda, self.foreign, self.most, self.broken = cuda, foreign, most, broken

    @staticmethod
    def nptype(kind):
        return kind

    def Runtime(self, logger):  # noqa: N802
        assert hasattr(logger, "log")
        return SimpleNamespace(deserialize_cuda_engine=self.engine)

    def engine(self, plan):
        return None if self.foreign else Engine(self, plan.decode())


class Engine:
    def __init__(self, trt, file):
        self.trt, self.file = trt, file
        header = read_onnx_header(Path(file))
        self.ports = {**header.inputs, **header.outputs}
        self.given = set(header.inputs)
        self.num_io_tensors = len(self.ports)

    def get_tensor_name(self, number):
        return list(self.ports)[number]

    def get_tensor_mode(self, name):
        return "in" if name in self.given else "out"

    def get_tensor_dtype(self, name):
        return getattr(np, self.ports[name].dtype)

    def get_tensor_shape(self, name):
        return [side if isinstance(side, int) else -1 for side in self.ports[name].shape]

    def create_execution_context(self):
        return Context(self)


class Context:
    def __init__(self, engine):
        self.engine, self.trt = engine, engine.trt
        self.shapes, self.addresses, self.session = {}, {}, None

    def set_input_shape(self, name, shape):
        if max(shape, default=1) > self.trt.most:
            return False
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        return self.shapes.get(name) or self.opened()[1][name]

    def opened(self):
        if self.session is None:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            for name, shape in self.shapes.items():
                for free, side in zip(self.engine.ports[name].shape, shape, strict=True):
                    if isinstance(free, str):
                        options.add_free_dimension_override_by_name(free, side)
            made = onnxruntime.InferenceSession(
                self.engine.file, options, providers=["CPUExecutionProvider"]
            )
            ports = [*made.get_inputs(), *made.get_outputs()]
            self.session = made, {port.name: port.shape for port in ports}
        return self.session

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return address in self.trt.cuda.memory

    def execute_async_v3(self, stream):
        assert stream == 77
        if self.trt.broken:
            return False
        held = dict(self.addresses)
        if self.trt.cuda.capturing is None:
            self.compute(held)
        else:
            self.trt.cuda.capturing.append(lambda: self.compute(held))
        return True

    def compute(self, held):
        session, shapes = self.opened()
        kinds = {port: self.engine.get_tensor_dtype(port) for port in self.engine.ports}

        def view(name):
            count = int(np.prod(shapes[name])) * np.dtype(kinds[name]).itemsize
            memory = (ctypes.c_uint8 * count).from_address(held[name])
            return np.frombuffer(memory, kinds[name]).reshape(shapes[name])

        names = [name for name in self.engine.ports if name not in self.engine.given]
        made = session.run(names, {name: view(name).copy() for name in self.engine.given})
        for name, array in zip(names, made, strict=True):
            view(name)[...] = array
