# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/installed
# What Kivy needs to open a window on a virtual screen, what records the calls of a process, an archive
# of pictures, and what the page for phones runs in.
DEBIAN := xvfb libgl1-mesa-dri libgl1 strace orthanc orthanc-dicomweb chromium
# What builds that page; many have it from elsewhere.
NODE := $(if $(shell command -v npm),,nodejs npm)

# uv is twice as fast; where it finds no index, pip's own settings may name one.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-all fuzz jar library java-test apk arm64 docs install debian clean

# Where it is set, as in many containers, each of the tests' processes compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

demo: $(STAMP)
	$(BIN)/dermedge demo $(ARGS)

MARKED ?= not slow
# What takes long is left to `make test-all`. No restart of workers: after a crash xdist's loadfile gives out work that is done, and waits for ever.
# Both runs of mypy at once: either takes one core for most of a minute. Three workers keep two cores
# busy: some wait for a browser, a server or another process. In the order of tests/conftest.py.
test: $(STAMP) debian
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy dermedge train export benchmarks edge_app & first=$$!; \
	    $(BIN)/mypy dermedge edge_app --platform win32 --cache-dir .mypy_cache/win32 \
	    --exclude 'qa/(chromium|web|webkit)\.py$$' && wait $$first
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 -m "$(MARKED)" $(ARGS)

# And what makes an APK of the page.
test-all: DEBIAN += aapt android-framework-res apksigner zipalign
test-all: MARKED =
test-all: library test

# Coverage-guided, a while for each reader of foreign bytes; what was learnt is kept in build/fuzz.
MINUTES ?= 30
fuzz: $(STAMP)
	$(PIP) -e '.[fuzz]'
	for target in image bundle tables store_import answers; do \
	    $(BIN)/python -m tests.fuzz $$target --minutes $(MINUTES) || exit 1; done

# ONNX Runtime's Java library, which Android's session is tested with. The newest on Maven Central.
JAR := 1.29.0
jar:
	mvn -q -B dependency:copy -DoutputDirectory=$(CURDIR)/build/jar \
	    -Dartifact=com.microsoft.onnxruntime:onnxruntime:$(JAR)

# For the tests; 54 MB, once. Without Maven or a network they are skipped, in words.
library:
	@[ -f build/jar/onnxruntime-$(JAR).jar ] || ! command -v mvn >/dev/null \
	    || timeout 120 $(MAKE) --no-print-directory -s jar >/dev/null 2>&1 \
	    || echo "Some tests are skipped: ONNX Runtime's Java library could not be fetched"

# The app's Java classes against Android's own library, by Robolectric.
java-test:
	mvn -q -B -f edge_app/android/java/pom.xml test

# The Android app, by buildozer, which fetches Android's SDK and NDK.
apk: $(STAMP)
	$(PIP) -e '.[android]'
	rm -rf build/android/dermedge build/android/edge_app build/android/java && mkdir -p build/android
	cp -r dermedge edge_app edge_app/android/buildozer.spec edge_app/android/main.py build/android
	cp -r edge_app/android/java/src/main/java build/android/java
	cd build/android && PATH=$(CURDIR)/$(BIN):$$PATH buildozer android debug

# ARM64, emulated, against this machine: PICTURES="a.jpg b.jpg", up to a minute each.
ARM64 ?= benchmarks/results/runtimes/arm64.json
arm64: $(STAMP)
	$(BIN)/python -m benchmarks.arm64 --out $(ARM64) $(PICTURES)

# The site, into build/docs.
docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "Open build/docs/index.html"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]' \
	    || $(PIP) -e '.[dev]'
	touch $@

debian:
	@missing=$$(for p in $(DEBIAN) $(NODE); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	if [ -z "$$missing" ]; then :; \
	elif ! command -v apt-get >/dev/null; then echo "Some tests are skipped without: $$missing"; \
	elif [ "$$(id -u)" = 0 ]; then \
	    apt-get update -qq; \
	    apt-get install -y -qq --no-install-recommends $$missing >/dev/null || for p in $$missing; do \
	        apt-get install -y -qq --no-install-recommends $$p >/dev/null \
	            || echo "Some tests may be skipped; could not be installed: $$p"; done; \
	else echo "Some tests are skipped; to run them: sudo apt-get install $$missing"; fi

clean:
	rm -rf .venv build docs/_generated *.egg-info
