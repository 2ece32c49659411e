# The short way in; Meson and Ninja do the work. `make help` lists the targets.
BUILD ?= build
BUILD_ASAN ?= build-asan
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
ARGS ?=
SANITIZE = -Db_sanitize=address,undefined -Db_lundef=false -Dbuildtype=debug -Doptimization=2
C_FILES = $(shell git ls-files '*.c' '*.h')

help:
	@echo 'make build            install missing Debian packages, then build $(BUILD)/octavo'
	@echo 'make run [ARGS=...]   build, quantise the bundled model to W8A8C8, and serve that on 127.0.0.1:8000'
	@echo 'make check            build, then run every test'
	@echo 'make check-sanitize   the same tests under AddressSanitizer and UBSan, in $(BUILD_ASAN)'
	@echo 'make install          into PREFIX ($(PREFIX)), below DESTDIR when it is set'
	@echo 'make format           lay out every C file with clang-format; check-format only looks'
	@echo 'make tidy             clang-tidy over src/ (slow)'
	@echo 'make clean            remove $(BUILD) and $(BUILD_ASAN)'

deps:
	@tools/install-deps

build: deps
	@test -f $(BUILD)/build.ninja || meson setup $(BUILD)
	@ninja -C $(BUILD) -j $(JOBS)

# Made again when the program is newer: what it writes may have changed.
run: build
	@test $(BUILD)/storyteller-w8a8c8 -nt $(BUILD)/octavo || \
		$(BUILD)/octavo quantize models/storyteller -o $(BUILD)/storyteller-w8a8c8 --overwrite
	$(BUILD)/octavo serve $(BUILD)/storyteller-w8a8c8 --served-model-name storyteller --host 127.0.0.1 --port 8000 $(ARGS)

check: build
	@tools/install-deps test
	@tools/run_tests $(BUILD) --no-rebuild --num-processes $(JOBS) $(ARGS)

build-sanitize: deps
	@test -f $(BUILD_ASAN)/build.ninja || meson setup $(SANITIZE) $(BUILD_ASAN)
	@ninja -C $(BUILD_ASAN) -j $(JOBS)

check-sanitize: build-sanitize
	@tools/install-deps test
	@tools/run_tests $(BUILD_ASAN) --no-rebuild --num-processes $(JOBS) --timeout-multiplier 5 $(ARGS)

install: build
	@meson configure $(BUILD) -Dprefix=$(PREFIX)
	@meson install -C $(BUILD)

format:
	@tools/install-deps lint
	@clang-format -i $(C_FILES)

check-format:
	@tools/install-deps lint
	@clang-format --dry-run -Werror $(C_FILES)

tidy: build
	@tools/install-deps lint
	@clang-tidy --quiet -p $(BUILD) $(shell git ls-files 'src/*.c' 'examples/*.c')

clean:
	rm -rf $(BUILD) $(BUILD_ASAN)

.PHONY: help deps build run check build-sanitize check-sanitize install format check-format tidy clean
