# The two commands are `make demo` and `make test`; both work from nothing on a fresh Debian 12.
# The logic is in tests/rig; `tests/rig/run --help` tells about the emulated machine.
PYTHON = PYTHONPATH=. .venv/bin/python -P
export PYTHONDONTWRITEBYTECODE = 1

.PHONY: help demo test lint image clean

help: ## show this text
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10
	@echo "DEMO_ARGS=... passes arguments to the demonstration; CEDARBOX_CACHE names where built images are kept"

demo: ## run the demonstration in a real microVM, then verify its ledger as an auditor would
	@tests/rig/host.sh rig
	@$(PYTHON) -m tests.rig.demo $(DEMO_ARGS)

test: ## run every check and every test, those that boot microVMs too
	@tests/rig/host.sh test
	@$(PYTHON) -m tests.rig.suite test

lint: ## run the checks of the source only
	@tests/rig/host.sh venv
	@$(PYTHON) -m tests.rig.suite lint

image: ## build the OCI image and the emulated machine, and print the path of the image's layout
	@tests/rig/host.sh rig
	@tests/rig/image
	@tests/rig/run --no-image -- true

clean: ## remove what was made in the checkout; the cache outside it stays
	rm -rf .venv .cedarbox dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
