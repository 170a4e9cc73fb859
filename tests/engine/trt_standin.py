"""TensorRT and the CUDA runtime, stood in for on the host: memory is numpy's, a plan is the path of
an ONNX graph, and what a plan computes ONNX Runtime computes. What is captured is run at launch.
"""

import ctypes
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime

from engine.onnxgraph import read_onnx_graph
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


class _Bytes(bytes):
    nbytes = property(len)


class TensorRt:
    """The package `tensorrt`. most: the largest side that a plan takes; foreign: it is of another
    card. fixed: its weights cannot be exchanged; nameless: weights that the plan has no name for;
    joined: a weight -> those that TensorRT wants with it; refusing: it does not exchange.
    plans: how many were loaded. exchanges: the names that each exchange was given.
    """

    __version__ = "11.4"
    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    ILogger = type("ILogger", (), {"__init__": lambda self: None})

    def __init__(self, cuda, *, foreign=False, most=10**9, broken=False, **refits):
        self.cuda, self.foreign, self.most, self.broken = cuda, foreign, most, broken
        self.fixed = refits.pop("fixed", False)
        self.nameless = refits.pop("nameless", ())
        self.joined = refits.pop("joined", {})
        self.refusing = refits.pop("refusing", False)
        assert not refits
        self.plans, self.exchanges, self.profiles = 0, [], {}

    @staticmethod
    def Weights(array):  # noqa: N802
        assert array.flags.c_contiguous
        return array

    def Refitter(self, engine, logger):  # noqa: N802
        assert hasattr(logger, "log")
        return Refitter(engine)

    @staticmethod
    def nptype(kind):
        return kind

    def Runtime(self, logger):  # noqa: N802
        assert hasattr(logger, "log")
        return SimpleNamespace(deserialize_cuda_engine=self.engine)

    # What a builder takes is passed over: its plan is the path of the graph that was parsed.
    BuilderFlag = SimpleNamespace(REFIT="refit", TF32="tf32")
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)

    def Builder(self, logger):  # noqa: N802
        cache = SimpleNamespace(serialize=lambda: b"timings")
        return SimpleNamespace(
            create_network=lambda flags: SimpleNamespace(graph=None),
            create_builder_config=lambda: SimpleNamespace(
                add_optimization_profile=lambda profile: None,
                clear_flag=lambda flag: None,
                create_timing_cache=lambda data: cache,
                set_timing_cache=lambda cache, *, ignore_mismatch: True,
                get_timing_cache=lambda: cache,
            ),
            create_optimization_profile=lambda: SimpleNamespace(set_shape=self.profile),
            build_serialized_network=lambda network, config: _Bytes(network.graph.encode()),
        )

    def OnnxParser(self, network, logger):  # noqa: N802
        def parse(path):
            network.graph = path
            return True

        return SimpleNamespace(parse_from_file=parse)

    def profile(self, name, least, best, most):
        self.profiles[name] = (least, best, most)

    def engine(self, plan):
        self.plans += 1
        return None if self.foreign else Engine(self, plan.decode())


class Engine:
    def __init__(self, trt, file):
        self.trt, self.file = trt, file
        self.refittable = not trt.fixed
        self.version, self.weights = 0, {}
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


class Refitter:
    """Weights are held by reference, as TensorRT holds them, until they are exchanged."""

    def __init__(self, engine):
        self.engine, self.trt = engine, engine.trt
        self.prototypes = read_onnx_graph(Path(engine.file)).weights
        self.given = {}

    def get_all_weights(self):
        return [name for name in self.prototypes if name not in self.trt.nameless]

    def set_named_weights(self, name, weights):
        old = self.prototypes.get(name)
        if old is None or name in self.trt.nameless:
            return False
        if (old.shape, old.dtype) != (weights.shape, weights.dtype):
            return False
        self.given[name] = weights
        return True

    def get_missing_weights(self):
        wanted = {each for name in self.given for each in self.trt.joined.get(name, ())}
        return sorted(wanted - self.given.keys())

    def refit_cuda_engine(self):
        self.trt.exchanges.append(sorted(self.given))
        if self.trt.refusing or self.get_missing_weights():
            return False
        self.engine.weights |= {name: each.copy() for name, each in self.given.items()}
        self.engine.version += 1
        self.given = {}
        return True


class Context:
    def __init__(self, engine):
        self.engine, self.trt = engine, engine.trt
        self.shapes, self.addresses, self.session, self.version = {}, {}, None, 0

    def set_input_shape(self, name, shape):
        if max(shape, default=1) > self.trt.most:
            return False
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        return self.shapes.get(name) or self.opened()[1][name]

    def opened(self):
        """Give a session with the engine's weights, and the shapes of all tensors."""
        if self.session is None:
            made = self.made({})
            ports = [*made.get_inputs(), *made.get_outputs()]
            self.session = made, {port.name: port.shape for port in ports}
        if self.version != self.engine.version:
            self.version = self.engine.version
            self.session = self.made(self.engine.weights), self.session[1]
        return self.session

    def made(self, weights):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self.held = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(each) for name, each in weights.items()
        }
        for name, value in self.held.items():
            options.add_initializer(name, value)
        if weights:  # folding would take the file's own ones
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        for name, shape in self.shapes.items():
            for free, side in zip(self.engine.ports[name].shape, shape, strict=True):
                if isinstance(free, str):
                    options.add_free_dimension_override_by_name(free, side)
        return onnxruntime.InferenceSession(
            self.engine.file, options, providers=["CPUExecutionProvider"]
        )

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
            version = self.engine.version

            def replayed():
                assert version == self.engine.version, "captured before weights were exchanged"
                self.compute(held)

            self.trt.cuda.capturing.append(replayed)
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
