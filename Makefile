# The two that matter: `make demo` starts the whole counter on this machine, `make test` runs every test.
# Both install what they need first, on a fresh Debian 12 (setup/debian.sh); a second time that costs nothing.

PY := .venv/bin/python
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test image deb appliance check lint types unit bench proof cuts world storm plants search attacks link docs lock

help:
	@echo 'make demo    the whole counter on this machine; prints one URL   (ARGS="--day FILE --json" plays a scripted day)'
	@echo 'make test    every test                                          (ARGS="-k word" some of them)'
	@echo 'make check   lint, types, the unit file, every test'
	@echo 'make bench   the figures, one JSON object a line'
	@echo 'make proof   tests, a printer cut off at every byte, the simulated world, a storm of payments, each planted bug,'
	@echo '             every order of eight events, a thousand configurations that no box may take, a hostile box at the cloud, a million lines of noise, and the link under a hundred kills'
	@echo 'make image   the image for a card, build/image/tillbox.img     (ARGS=--twice builds it again and compares; docs/image.md)'
	@echo 'make deb     a Debian package for a stock Raspberry Pi OS     (ARGS="--arch amd64")'
	@echo 'make appliance  the built image in an emulated machine   (after make image; ARGS="-k smoke" some of it)'
	@echo 'make docs    redraw docs/architecture.md, docs/asyncapi.yaml and docs/technician.md from the code'
	@echo 'make lock    pin every dependency anew in requirements.lock'

setup:
	@bash setup/debian.sh

demo: setup
	@$(PY) -m sim.demo $(ARGS)

test: setup
	@.venv/bin/pytest -q $(ARGS)

image:
	@bash setup/appliance.sh
	@$(PY) -m image $(ARGS)

deb: setup
	@$(PY) -m image.deb $(ARGS)

check: setup lint types unit
	@.venv/bin/pytest -q

lint:
	@.venv/bin/ruff check .

types:
	@.venv/bin/mypy

# Each unit's most, in tenths: docs/units.md says why.  No table on success: the verdict is the exit code.
UNITS := 15:tillbox.service 10:tillbox-console@.service 10:tillbox-check.service 45:tillbox-data.service 6:tillbox-slot.service 6:tillbox-slot-trial.service
unit:
	@for unit in $(UNITS); do \
	  systemd-analyze --no-pager security --offline=true --threshold=$${unit%%:*} systemd/$${unit#*:} >.unit.log 2>&1 \
	    || { cat .unit.log; exit 1; }; tail -n 1 .unit.log; done; rm -f .unit.log

bench: setup
	@$(PY) -m bench $(ARGS)

proof: test cuts world storm plants search attacks link

cuts: setup
	@TILLBOX_EVERY=1 .venv/bin/pytest -q tests/drivers/test_printer_cut_off.py

world: setup
	@$(PY) -m sim.world --seed 1 --sales 1000 --json $(ARGS)
	@$(PY) -m sim.world --seed 1 --sales 300 --faults signer --json
	@$(PY) -m sim.world --seed 1 --sales 150 --faults flash --json

storm: setup
	@$(PY) -m sim.storm --seed 1 --payments 20000 --json $(ARGS)

plants: setup
	@$(PY) -m sim.storm --seed 1 --payments 3000 --plant all

attacks: setup
	@$(PY) -m tests.config_attacks --seed 1 --count 1000 --json
	@$(PY) -m tests.cloud_attacks --seed 1 --count 1000 --json
	@$(PY) -m tests.cloud_attacks --seed 2 --count 1000 --store postgresql --json
	@$(PY) -m tests.push_kills --seed 1 --rounds 10 --json
	@$(PY) -m tests.console_noise --seed 1 --lines 1000000

docs: setup
	@$(PY) -m docs.draw
	@$(PY) -m docs.asyncapi
	@$(PY) -m docs.technician

link: setup
	@$(PY) -m tests.link_storm --kills 100 --store postgresql
	@$(PY) -m tests.link_storm --kills 100 --store sqlite

search: setup
	@$(PY) -m sim.search --depth 8 --json

# pip-tools lives in its own environment: it is no part of the box, nor of its tests.
lock:
	python3 -m venv build/lock
	build/lock/bin/pip install -q pip-tools
	build/lock/bin/pip-compile -q --generate-hashes --extra fleet --extra pkcs11 --extra oled --extra sim --extra dev --allow-unsafe --strip-extras \
	  --no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o requirements.lock pyproject.toml

# What `make image` built, in an emulated machine: docs/appliance.md.  No test there lasts for ever, and neither does the whole.
appliance: setup
	@timeout 7200 .venv/bin/pytest -q -o addopts=--strict-markers tests/appliance $(ARGS)
