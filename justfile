# Everything done often. `just` alone checks what CI checks.

python := env("PYTHON", "python3")

default: lint types test

# A virtual environment in .venv with everything for development
setup:
    {{python}} -m venv .venv
    .venv/bin/pip install -e '.[dev]'

# The tests that CI runs (under 12 minutes on 2 cores)
test *options:
    {{python}} -m pytest -n auto {{options}}

# All tests, the long ones too
test-all *options:
    {{python}} -m pytest -n auto -m '' {{options}}

lint:
    {{python}} -m ruff check .
    {{python}} -m ruff format --check .
    {{python}} -m blurkit.cli.reference --check

types:
    {{python}} -m mypy

# Format
format:
    {{python}} -m ruff check --fix .
    {{python}} -m ruff format .

# The figures of docs/benchmarks.md: ratios measured side by side
bench *options:
    {{python}} -m tests.benchmarks.run {{options}}

# How well the shipped weights work on real pairs: docs/benchmarks.md, README.md, their pictures
quality *options:
    {{python}} -m tests.benchmarks.quality {{options}}

# The options and examples in docs/commands/
docs:
    {{python}} -m blurkit.cli.reference

# Every picture and printed example in docs/commands/, from the weights that come with blurkit
pictures:
    bash docs/pictures.sh
    {{python}} -m blurkit.cli.reference
