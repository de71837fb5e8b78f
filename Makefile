# Everything below makes its own .venv; nothing else on the machine is touched.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= torch==2.13.0
TRITON ?= triton==3.6.0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test proof check release-check gpu tune bench generate clean

install: $(STAMP)

# torch first and pinned: a plain `torch` would bring gigabytes of CUDA libraries that a CPU does not need. CUDA builds bring
# their own Triton.
$(STAMP): pyproject.toml nano/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -c 'import triton' 2> /dev/null || $(BIN)/python -m pip install --quiet $(TRITON)
	$(BIN)/python -m pip install --quiet --editable '.[cpu,export,tensorrt-rtx,server,gateway,provenance,trace,bench,kernels,dev]' --editable ./nano
	touch $@

demo: install
	$(BIN)/consisid demo

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p consisid_kernels -p consisid_runtime -p consisid_export -p consisid_nano -p consisid_training \
	  -p consisid_measurement -p consisid_fidelity -p consisid_benchmarks -p consisid_gateway

# Before a release: no page is outdated, no record was measured with other source files. No part of `check`: figures take
# hours to measure.
release-check: install
	$(BIN)/consisid bench report --check

# Two processes of one thread each: they need not wait for each other. What shares a module's fixtures stays together, and
# files start in the order of tests/conftest.py.
test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not proof'

# What takes longer than a test may: an hour on 2 cores and two more of traffic, and 25 GB of disk. What has a record is not
# repeated.
proof: install
	$(BIN)/pytest -m proof

# On a machine with an NVIDIA GPU, in the environment of PYTHON, which has a CUDA build of PyTorch: nothing is installed. Parts
# that have a record of these source files are not repeated. PART='stages whole' runs these alone; PART=sanitizer is asked for
# in this way only, since compute-sanitizer needs more rights than some virtual machines give.
ON_GPU := PYTHONPATH=$(CURDIR)/runtime:$(CURDIR)/export:$(CURDIR)/kernels:$(CURDIR)/benchmarks:$(CURDIR)/nano$(if $(PYTHONPATH),:$(PYTHONPATH)) $(PYTHON)
OUT ?= benchmarks/results
BUDGET ?= 480
PART ?=
gpu:
	$(ON_GPU) -P -m consisid_benchmarks.gpu_run --budget $(BUDGET) --out $(OUT) $(addprefix --only ,$(PART))

# Writes the tables of tiles of this GPU; then `make gpu` again.
tune:
	$(ON_GPU) -P -m consisid_benchmarks.suites.tune

bench: install
	$(BIN)/consisid bench pipeline
	$(BIN)/consisid bench export
	$(BIN)/consisid bench report

# Files and tables that derive from the code; tests compare them.
generate: install
	$(BIN)/python -m consisid_runtime.serve.repository model_repository
	$(BIN)/python -m consisid_export.bundle.schema runtime/consisid_runtime/manifest.schema.json
	$(BIN)/python docs/generate.py
	$(BIN)/python -m consisid_kernels.compile.readme kernels/README.md

clean:
	rm -rf $(VENV) build dist demo.mp4 demo.png demo.gif
