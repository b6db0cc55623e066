# Python 3.11+ and make are all that a machine needs. Every target is idempotent.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin
# A waiting OpenMP thread must not spin: on a busy machine that made training many times slower.
export OMP_WAIT_POLICY := PASSIVE
export GX_ANALYTICS_ENABLED := false
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: setup demo test lint bench clean

setup: $(READY)
	@echo "ready: $(RUN)/sameworld"

$(READY): pyproject.toml constraints.txt
	@test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(RUN)/uv || $(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@$(RUN)/uv pip install --quiet --python $(RUN)/python -c constraints.txt -e '.[dev]' \
	  || $(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: setup
	@$(RUN)/sameworld demo

lint: setup
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports --no-logo

test: lint
	@$(RUN)/pytest

# Times and memory of the table steps; ROWS="1000000" for one size. The other benchmarks: python -m benchmarks.
bench: setup
	@$(RUN)/python -m benchmarks.steps --write $(if $(ROWS),--rows $(ROWS))

clean:
	rm -rf $(VENV) .sameworld .mypy_cache .ruff_cache .pytest_cache *.egg-info
