# make demo    the whole line on synthetic patients, in a few minutes
# make test    install what is needed, then run the tests but for those that take minutes
# make test COV=--cov    the same, and which lines no test runs; a quarter slower
# make slow    the tests that take minutes: the demo at full size, an install without training, the notebook; CI runs them, too
# make accurate DATA=rsna_breast FILM=cbis_ddsm_mass DIGITAL=cesm_lesions    the accurate model, from the images; an evening
# make check   lint, format, types, and that imports run downwards
# make kills   trainings and batches that are killed at random moments, or meet damaged files; three quarters of an hour
# make fuzz    hostile files of every format that is read, guided by coverage; half an hour
# make load    20 sessions at the page for five minutes, and batches of up to 10,000 files: nothing lost, memory flat; a quarter of an hour
# make cluster processes and machines of a Ray cluster lost in the middle of everything, and what a cluster costs; a quarter of an hour
# make hospital  200 studies through a PACS (Orthanc) and back, with kills and outages: none lost, none double; five minutes
# make same BEFORE=COMMIT    this version answers and reports as that one did, to the digit; 8 minutes, or 4 with KEPT
# make bench   speed, side by side with others and with the machine's limits, into docs/performance.md; half an hour
# make newest  each door once on every Python >= 3.11 here, with lowest and newest versions; EXTRAS=train,app trains, too
# make install the environment in .venv, as requirements.lock has it: versions and SHA-256
# make lock    requirements.lock anew from pyproject.toml; MOVE=--upgrade moves to newer versions
# make audit   the locked versions against the database of known vulnerabilities, where its service can be reached
# make sbom    build/sbom.json: what the environment is made of, in CycloneDX

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
TENSORFLOW := build/tensorflow/.installed
OPENVINO := build/openvino/openvino
BENCHMARKS := starting baseline reading serving answering training reports many

.PHONY: demo test slow accurate check bench kills fuzz load cluster hospital same newest install lock audit sbom browser clean
.DEFAULT_GOAL := demo

demo: $(INSTALLED)
	rm -rf demo
	$(BIN)/mammolens demo demo

test: $(INSTALLED) browser
	$(BIN)/pytest $(COV) --numprocesses $$((1 + $$(getconf _NPROCESSORS_ONLN))) --dist loadfile --no-loadscope-reorder --durations 25

slow: $(INSTALLED) browser
	$(BIN)/pytest --override-ini addopts= --strict-markers -ra -m campaign --ignore tests/cluster --durations 10

accurate: $(INSTALLED)
	@test -n "$(DATA)" -a -n "$(FILM)" -a -n "$(DIGITAL)" || { echo "name three data sets: make accurate DATA=rsna_breast FILM=cbis_ddsm_mass DIGITAL=cesm_lesions"; exit 2; }
	-$(BIN)/mammolens doctor $(DATA) --mend runs/corrected.csv --out runs/doctor
	$(BIN)/mammolens manifest runs/corrected.csv runs/accurate.csv --splits patient --fractions 0.8 0.2 0
	$(BIN)/mammolens manifest $(FILM) runs/film.csv --splits valid --fractions 0.95 0.05 0
	$(BIN)/mammolens manifest $(DIGITAL) runs/digital.csv --splits patient --fractions 0.75 0 0.25
	test -f runs/lesions/run.json || $(BIN)/mammolens train runs/film.csv --recipe lesions --out runs/lesions
	test -f runs/accurate/run.json || $(BIN)/mammolens train runs/accurate.csv --recipe accurate --also runs/film.csv --also runs/digital.csv --set initial_weights=runs/lesions --out runs/accurate
	$(BIN)/mammolens export runs/accurate runs/accurate-bundle --name accurate --half --licence "RSNA Screening Mammography Breast Cancer Detection challenge terms (non-commercial research, no attempt to identify anyone); pretrained on CBIS-DDSM (CC BY 3.0); boxes of CDD-CESM (CC BY 4.0)"

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# TensorFlow and OpenVINO, for comparison, have places of their own; where one cannot be installed, its rows are left out.
bench: $(INSTALLED)
	@$(MAKE) --no-print-directory $(TENSORFLOW) || echo "TensorFlow cannot be installed here: what is held against it is left out"
	@$(MAKE) --no-print-directory $(OPENVINO) || echo "OpenVINO cannot be installed here: what is held against it is left out"
	for one in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$one || exit; done
	$(BIN)/python -m benchmarks.performance

$(TENSORFLOW):
	$(PYTHON) -m venv build/tensorflow
	build/tensorflow/bin/python -m pip install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0 keras==3.15.1 pillow==13.0.0 scipy==1.17.1
	@touch $@

$(OPENVINO):
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/openvino openvino==2026.4.1

kills: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python tests/learning/kills.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/serving/mishaps.py kills
	OMP_NUM_THREADS=1 $(BIN)/python tests/serving/mishaps.py damaged

# EXECUTIONS=100 ONLY="dicom zip" tries less. What broke something is kept in build/fuzz.
fuzz: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/campaign.py $(if $(EXECUTIONS),--executions $(EXECUTIONS)) $(if $(ONLY),--only $(ONLY))

load: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python tests/app/load.py --sessions 20 --minutes 5
	$(BIN)/python -m benchmarks.many 10000

cluster: $(INSTALLED)
	$(BIN)/pytest tests/cluster --override-ini addopts= --durations 10
	$(BIN)/python -m benchmarks.cluster
	$(BIN)/python -m benchmarks.scale

hospital: $(INSTALLED) browser
	OMP_NUM_THREADS=1 PYTHONPATH=tests:tests/dicom_results $(BIN)/python tests/pacs/outages.py

# KEPT=/tmp/same keeps what was before for the next time; PARTS="data train" compares these alone.
same: $(INSTALLED)
	@test -n "$(BEFORE)" || { echo "name the version to compare with: make same BEFORE=main"; exit 2; }
	$(BIN)/python tests/same_answers.py $(BEFORE) $(if $(KEPT),--kept $(KEPT)) $(if $(PARTS),--only $(PARTS))

# The lock is not asked. With EXTRAS=train,app uv takes PyTorch's build with CUDA, gigabytes for each.
newest:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	PATH="$(CURDIR)/.venv-lock/bin:$$PATH" UV_SYSTEM_CERTS=1 $(PYTHON) tests/versions.py $(if $(EXTRAS),--extras $(EXTRAS)) $(if $(PYTHONS),--pythons $(PYTHONS))

install: $(INSTALLED)

# The page is tried in a real browser, and system calls are read; where the tools for it cannot be
# installed, those tests say so and skip.
browser:
	@command -v chromium >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends chromium; } >/dev/null 2>&1 || echo "no Chromium here, and none could be installed: the browser tests will skip"
	@test -e build/axe/node_modules/axe-core/axe.min.js || npm install --prefix build/axe --no-save --ignore-scripts --no-audit --no-fund axe-core@4.10.3 >/dev/null 2>&1 || echo "no axe-core here, and npm could not get it: the accessibility tests will skip"
	@for one in dciodvfy:dicom3tools dsrdump:dcmtk; do command -v $${one%:*} >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends $${one#*:}; } >/dev/null 2>&1 || echo "no $${one%:*} here, and $${one#*:} could not be installed: what it says of DICOM results is not tested"; done
	@test -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so || { apt-get update && apt-get install --yes --no-install-recommends orthanc orthanc-dicomweb; } >/dev/null 2>&1 || echo "no Orthanc with DICOMweb here, and none could be installed: the loop of a PACS is not tested"
	@test -d build/ohif/package/dist || { mkdir -p build/ohif && cd build/ohif && npm pack @ohif/app@3.12.10 && tar xzf ohif-app-3.12.10.tgz; } >/dev/null 2>&1 || echo "no OHIF here, and npm could not get it: what a viewer shows of DICOM results is not tested"
	@command -v strace >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends strace; } >/dev/null 2>&1 || echo "no strace here, and none could be installed: what leaves the machine is not tested"

# PyTorch comes first, by itself: pip prefers what an index tells the hash of, and would pass over a build for the CPU
# that lies on this machine. What PyTorch for Linux with CUDA needs beside it is not locked: it names exact versions.
$(INSTALLED): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("mammolens needs Python 3.11 or newer: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	@mkdir -p build/torch
	@awk '/^torch==/ {on = 1} on {print} on && !/\\$$/ {exit}' requirements.lock > build/torch/torch.lock
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest build/torch "$$(sed -n 's/^\(torch==[^ ]*\) .*/\1/p' build/torch/torch.lock)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --no-index --find-links build/torch --requirement build/torch/torch.lock
	@rm -r build/torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[train,app,tune,cluster,dicom,serve,pacs,dev]'
	@touch $@

# A hash of PyTorch's build for the CPU, which its own index offers, is added by hand; uv keeps it.
lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	.venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --system-certs $(MOVE) --all-extras --output-file requirements.lock pyproject.toml

audit: $(INSTALLED)
	$(BIN)/python tests/audit.py requirements.lock

sbom: $(INSTALLED)
	@mkdir -p build
	$(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible --output-file build/sbom.json

clean:
	rm -rf .venv demo .coverage .mypy_cache .pytest_cache .ruff_cache
