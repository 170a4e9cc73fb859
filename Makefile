# `make demo` and `make test` set up everything they need; neither asks a question.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests run offline in every sense; two threads are what the smallest machine has.
export HF_HUB_OFFLINE := 1

.PHONY: demo test test-late test-long lint types unit bench bench-micro bench-micro-save bench-peers pocket accept-gpu test-gpu-libs clean

# The runtime alone: no torch. Python compiles what it imports; the rest would be 60 MB for nothing.
$(VENV)/runtime: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[cpu]'
	touch $@

# What the tests need beside it, in one go. k-diffusion is an oracle whose own dependencies are not
# wanted.
$(VENV)/dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[cpu,export,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps 'k-diffusion==0.1.1.post1'
	@# Hundreds of short programs run in the tests: what they import is compiled once, also where
	@# PYTHONDONTWRITEBYTECODE is set, and by all cores, which pip does
	@# not. -qq: a file of torch is written for Python 3.12, and is no error here.
	$(BIN)/python -m compileall -qq -j 0 -x '/(tests?|testing|transformers/models|diffusers/pipelines)/' \
	  $(VENV)/lib engine export vault safelight benchmarks || true
	touch $(VENV)/runtime $@

demo: $(VENV)/runtime
	@sh demo.sh $(BIN)

lint: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(VENV)/dev
	$(BIN)/basedpyright

# A process a core, whole files each: most tests wait for one process or for the disk. In the order
# of their names: by default files of few tests come last, among them those that take minutes.
unit: $(VENV)/dev
	$(BIN)/python -m pytest -m 'not slow and not gpu and not gpu_libs' -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --benchmark-disable

# Types are looked at while the tests run: what they lack goes by in the first minutes.
test: lint
	$(MAKE) -j2 types unit

# The gallery in a browser on a machine that answers late: what a person does must not be lost.
test-late: $(VENV)/dev
	SAFELIGHT_TEST_DELAY=0.6 $(BIN)/python -m pytest tests/gallery -m browser -n auto --maxprocesses 4 --dist loadfile

test-long: $(VENV)/dev
	$(BIN)/python -m pytest -m 'not gpu and not gpu_libs' --override-ini=addopts='--import-mode=importlib -p no:schemathesis --strict-markers -ra --durations=20'

bench: $(VENV)/dev
	$(BIN)/python -m benchmarks.pocket
	$(BIN)/python -m benchmarks.sealing sealing-work
	$(BIN)/python -m benchmarks.speed speed-work
	$(BIN)/python -m benchmarks.throughput
	$(PYTHON) -m venv $(VENV)-startup
	$(VENV)-startup/bin/python -m pip install --quiet --disable-pip-version-check --no-compile '.[cpu]'
	$(BIN)/python -m benchmarks.startup $(VENV)-startup/bin/python

# Small pieces against their saved baselines of this machine; a quarter slower fails.
MICRO := $(BIN)/python -m pytest benchmarks/micro -q --benchmark-only -o filterwarnings=default --benchmark-storage=file://benchmarks/micro/baselines
bench-micro: $(VENV)/dev
	$(MICRO) --benchmark-compare --benchmark-compare-fail=median:25%

bench-micro-save: $(VENV)/dev
	$(MICRO) --benchmark-save=baseline

# Other projects beside ours, each in a venv of its own under bench-peers-work: wants the package
# index, 24 GB of disk, 10 GiB of memory to make a model, and half an hour for the installations;
# the turns are bounded by themselves. stable-diffusion.cpp knows no model as small as pocket.
bench-peers: $(VENV)/dev
	$(BIN)/python -m benchmarks.peers --scenario pocket-128 --work bench-peers-work --limit 600
	$(BIN)/python -m benchmarks.peers --scenario turbo-512 --work bench-peers-work --rounds 3 --limit 1200 \
	  --precision auto --only 'diffusers bf16 channels_last,openvino-genai bf16,stable-diffusion.cpp'
	test -x bench-peers-work/venvs/sqlcipher/bin/python || { $(PYTHON) -m venv bench-peers-work/venvs/sqlcipher && \
	  bench-peers-work/venvs/sqlcipher/bin/python -m pip install --quiet sqlcipher3-wheels; }
	$(BIN)/python -m benchmarks.vault_peers --sqlcipher-python bench-peers-work/venvs/sqlcipher/bin/python

# Trains the model in the box, resumable at any moment; wants npm and a machine that does nothing else.
pocket: $(VENV)/dev
	set -e; for stage in data resume vae latents unet polish finish evaluate grid bundle; do \
	  $(BIN)/python -m export.pocket $$stage --work pocket-work --threads 2; done

# NVIDIA's libraries (2.5 GB) in an environment of their own, and no card: needs a C compiler.
test-gpu-libs: $(VENV)/dev
	test -x $(VENV)-cuda/bin/python || $(PYTHON) -m venv $(VENV)-cuda
	$(VENV)-cuda/bin/python -m pip install --quiet --disable-pip-version-check --no-compile '.[cuda]'
	$(VENV)-cuda/bin/python -m pip install --quiet --disable-pip-version-check --no-deps tensorrt-cu13-bindings
	SAFELIGHT_CUDA_PYTHON=$(CURDIR)/$(VENV)-cuda/bin/python $(BIN)/python -m pytest -m gpu_libs

# On a machine with an NVIDIA card, with any python that has torch or onnxruntime-gpu: GPU_PYTHON=...
GPU_PYTHON ?= $(PYTHON)
accept-gpu:
	$(GPU_PYTHON) -m benchmarks.gpu

clean:
	rm -rf $(VENV) $(VENV)-startup demo-home
