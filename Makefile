# `make check` is exactly what continuous integration runs. The other targets use the tools of the active environment:
# pip install -e '.[test]' --group dev     (pip >= 25.1)

.PHONY: check format lint types test docs lock

check:
	.ci/run

format:
	ruff format .
	ruff check --fix .

lint:
	ruff format --check .
	ruff check .

types:
	pyright

test:
	pytest

docs:
	zensical build --strict --clean
	python .ci/check_site.py site

lock:
	uv pip compile --universal --extra test --group dev pyproject.toml --generate-hashes --no-header --no-annotate -o requirements.lock
	python .ci/check_lock.py
