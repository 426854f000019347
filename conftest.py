"""How every test and doctest of this repository runs. At the root, so that it also governs the doctests of `comln`."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib: figures are drawn without a display

# Compilation happens inside the first example, so that a time limit per example means nothing. Fixed examples in CI.
hypothesis.settings.register_profile("comln", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("comln")

# Checks the shapes and types of every annotated function of the package as it is traced. Must precede its first import.
jaxtyping.install_import_hook("comln", "beartype.beartype")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--x32`."""
    parser.addoption("--x32", action="store_true", help="turn x64 off and run only the tests marked `float32`")


def pytest_configure(config: pytest.Config) -> None:
    """Configure JAX before any module of the package is imported."""
    jax.config.update("jax_enable_x64", not config.getoption("--x32"))
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_traceback_filtering", "tracebackhide")  # pytest's own; the default adds a note to messages


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under `--x32`, keep only the tests that are meant to hold in single precision."""
    if not config.getoption("--x32"):
        return
    kept = [item for item in items if item.get_closest_marker("float32")]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.fixture(autouse=True)
def _room_for_programs() -> Iterator[None]:
    """Let compiled programs go before Linux ends the process."""
    yield
    from comln.reproduce.programs import forget_programs_if_many  # not before the import hook is there

    forget_programs_if_many()


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict) -> None:
    doctest_namespace.update(jax=jax, jnp=jnp, np=np)


@pytest.fixture
def without_type_hook() -> Iterator[None]:
    """Turn the type hook off, for tests of the package's own messages about wrong shapes and types."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a data cache of its own; without it, data sets are built once and kept in the user's cache."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("COMLN_CACHE_DIR", str(cache))
    return cache
