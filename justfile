# Frequent tasks. `just` alone runs the same checks as CI.

python := env("PYTHON", "python3")

default: lint types test

# Create a virtual environment in .venv with everything for development
setup:
    {{python}} -m venv .venv
    .venv/bin/pip install -e '.[dev]'

# Run the tests that CI runs (about 6 minutes on 2 cores)
test *options:
    {{python}} -m pytest -n auto {{options}}

# Run all tests, including the slow ones
test-all *options:
    {{python}} -m pytest -n auto -m '' {{options}}

lint:
    {{python}} -m ruff check .
    {{python}} -m ruff format --check .
    {{python}} -m tests.tools.docs --check

types:
    {{python}} -m mypy

# Format the code
format:
    {{python}} -m ruff check --fix .
    {{python}} -m ruff format .

# Damage, faults and kills, more than 10,000 cases (about half an hour): docs/reliability.md
torture *options:
    HYPOTHESIS_PROFILE=thorough {{python}} -m pytest -n auto tests/test_properties.py
    {{python}} -m tests.torture {{options}}

# Let 500 single system calls fail, by strace (about half an hour): docs/reliability.md
faults *options:
    {{python}} -m tests.torture "system calls" {{options}}

# Give damaged files to every reader, an hour by default: docs/reliability.md
fuzz seconds="3600":
    FUZZ_SECONDS={{seconds}} {{python}} -m pytest -q tests/fuzz

# Measure the ratios in docs/benchmarks.md
bench *options:
    {{python}} -m tests.benchmarks.run {{options}}

# Measure the shipped weights on real pairs: docs/benchmarks.md, README.md, their pictures
quality *options:
    {{python}} -m tests.benchmarks.quality {{options}}

# Regenerate the options and examples in docs/commands/ and the tree in docs/architecture.md
docs:
    {{python}} -m tests.tools.docs

# Build the docs site in site/, with search; it needs pip install -e '.[docs]'
site *options:
    {{python}} -m sphinx --fail-on-warning --keep-going -q -c docs {{options}} . site
    @echo "open site/index.html"

# Make every picture and printed example in docs/commands/ with the weights that come with blurkit
pictures:
    bash docs/pictures.sh
    {{python}} -m tests.tools.docs
