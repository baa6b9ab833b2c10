# SPDX-License-Identifier: Apache-2.0
#
# The front door. The build itself is Meson's (meson.build); this file installs what is missing,
# picks a build directory and runs things. `make help` lists what there is.

BUILD  ?= build
PREFIX ?= /usr/local
export PYTHONDONTWRITEBYTECODE = 1

.DEFAULT_GOAL := all
.PHONY: all tests demo check asan tsan lint format bench soak fuzz install clean deps deps-test help

all: $(BUILD)/build.ninja ## build (into build/)
	@ninja -C $(BUILD)

$(BUILD)/build.ninja: | deps
	@meson setup --prefix=$(PREFIX) $(BUILD) . >/dev/null

deps:
	@tools/install-deps build

deps-test:
	@tools/install-deps test

demo: all ## install what is missing, build, make a datastore, run a job on it
	@tools/demo $(BUILD)/src/cli/grid

check: deps-test tests ## install what is missing, build, run all tests
	@tests/run-tests.py --build $(BUILD)

soak: deps-test tests ## the long forms of the tests
	@tests/run-tests.py --build $(BUILD) --soak

# Like all, with the tests too, also where build/ was made before their library was installed.
tests: | deps-test
	@[ -f $(BUILD)/build.ninja ] || meson setup --prefix=$(PREFIX) $(BUILD) . >/dev/null
	@meson configure $(BUILD) -Dtests=enabled && ninja -C $(BUILD)

asan: deps-test ## address and undefined-behaviour sanitizers over unit, format and view tests
	@tools/sanitize address,undefined build-asan

tsan: deps-test ## thread sanitizer over what runs in threads
	@tools/sanitize thread build-tsan

lint: deps-test all ## layers, headers, lengths, banned functions, format, clang-tidy, man pages
	@tools/lint $(BUILD)

format: ## clang-format all sources in place
	@git ls-files -z '*.c' '*.h' | xargs -0 clang-format -i

bench: deps-test ## measure against the floors; figures into bench/results/
	@bench/run

fuzz: deps-test ## fuzz each parser for FUZZ_SECONDS (60) with libFuzzer
	@tools/fuzz $${FUZZ_SECONDS:-60}

install: all ## install under PREFIX (/usr/local)
	@meson install -C $(BUILD) --no-rebuild
	@sed -n 's|^\(/.*/grid_slurm\.so\)$$|for Slurm, one line in /etc/slurm/plugstack.conf (docs/slurm.md): required \1|p' $(BUILD)/meson-logs/install-log.txt

clean: ## remove the build directories
	rm -rf build build-asan build-tsan build-fuzz

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*##/\t/' | expand -t 12
