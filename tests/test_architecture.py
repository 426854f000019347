"""The rule of floors, and the other rules about files and names that hold in the whole package.

Imports are read from the syntax tree, wherever they stand: at the top of a module, inside a function or under
`if TYPE_CHECKING:`. A name that is imported only for its type is still a name that a reader must know to follow the
file, so there are no exceptions; the one module above all floors is `comln/__init__.py`, the package's public face.
"""

import ast
import functools
import importlib
import inspect
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import comln

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "comln"

FLOORS = (
    ("__main__",),
    ("cli",),
    ("reproduce", "demo"),
    ("training", "predict", "estimators"),
    ("embed",),
    ("run",),
    ("recipes",),
    ("report",),
    ("meta_train",),
    ("evaluate", "weights", "metrics", "onnx_network"),
    ("checkpoint", "selection"),
    ("episodic", "optimiser"),
    ("learners",),
    ("flow", "heads", "backbones", "data"),
    ("losses", "episode", "devices", "hosts"),
    ("typing",),
)
"""From top to bottom: a module or folder imports from floors below its own, and a folder from itself."""

ODE_LIBRARIES = {"diffrax", "optimistix", "lineax"}
ODE_IMPORTER = "comln.flow.integrate"
DRAWERS = {"utils", "util", "misc", "common", "helpers"}
HEAVY = {"jax", "equinox", "diffrax", "optax", "matplotlib", "sklearn", "numpy"}


def dotted_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {dotted_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """Yield the dotted name of every module that `module` imports, however deep the import stands."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: write imports with the full path, as a reader would search for them."
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in SOURCES else node.module


def imports_of_package(module: str) -> Iterator[str]:
    return (name for name in imports(module) if name.split(".")[0] == "comln")


def unit(module: str) -> str:
    """Return the file or folder directly under `comln/` that holds `module`."""
    return module.split(".")[1]


def floor_of(module: str) -> int:
    """Return how many floors are below that of `module`."""
    for height, floor in enumerate(reversed(FLOORS)):
        if unit(module) in floor:
            return height
    raise AssertionError(f"{module} stands on no floor: add {unit(module)!r} to FLOORS.")


@pytest.mark.parametrize("module", [name for name in SOURCES if name != "comln"])
def test_imports_go_down(module):
    for imported in imports_of_package(module):
        assert imported != "comln", f"{module} imports the public face; import the file that defines the name."
        sideways = unit(imported) == unit(module)
        assert sideways or floor_of(imported) < floor_of(module), f"{module} must not import {imported}."


def test_no_module_imports_itself_through_others():
    """Without cycles, even lazy ones, the modules can be sorted by who needs whom."""
    waiting = {module: set(imports_of_package(module)) - {module} for module in SOURCES if module != "comln"}
    # That importing a module first runs its folder's `__init__` is not counted: one text does not need the other.
    while waiting:
        free = {module for module, needs in waiting.items() if not needs & waiting.keys()}
        assert free, f"These modules import one another in a circle: {sorted(waiting)}."
        waiting = {module: needs for module, needs in waiting.items() if module not in free}


def test_one_file_knows_the_ode_library():
    importers = {module for module in SOURCES if {name.split(".")[0] for name in imports(module)} & ODE_LIBRARIES}
    assert importers <= {ODE_IMPORTER}


def test_no_file_is_a_drawer():
    assert not [module for module in SOURCES if module.split(".")[-1].strip("_") in DRAWERS]


# Public names


def defines_names(module: str) -> bool:
    """Whether a module gives its readers names, by definition or by import."""
    giving = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom)
    return any(isinstance(node, giving) for node in tree(module).body)


@pytest.mark.parametrize("module", SOURCES)
def test_module_begins_with_docstring_and_public_names(module):
    assert ast.get_docstring(tree(module)), f"{module} needs a docstring that says what it is for."
    if not defines_names(module) or module == "comln.__main__":
        return
    first = tree(module).body[1]
    assert isinstance(first, ast.Assign) and isinstance(first.targets[0], ast.Name), module
    assert first.targets[0].id == "__all__", f"The first statement of {module} after its docstring must be `__all__`."
    names = ast.literal_eval(first.value)
    assert len(set(names)) == len(names)


def assigned_names(node: ast.stmt) -> set[str]:
    """Return the names that a statement assigns, if it is an assignment."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def documented_constants(module: str) -> set[str]:
    """Return the names assigned in a module that are followed by a docstring of their own."""
    return {
        name
        for node, following in itertools.pairwise(tree(module).body)
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        for name in assigned_names(node)
    }


def is_recipe(module: str) -> bool:
    """Whether a module is a named experiment: there the module's docstring documents the constants."""
    return module.startswith("comln.recipes.") and "EXPERIMENT" in importlib.import_module(module).__all__


def undocumented(module: ModuleType) -> Iterator[str]:
    """Yield the public names of a module, and of its public classes, that nothing documents."""
    constants = {name for node in tree(module.__name__).body for name in assigned_names(node)}
    for name in module.__all__:
        value = getattr(module, name)
        if name in constants:
            if name not in documented_constants(module.__name__) and not is_recipe(module.__name__):
                yield name
        elif getattr(value, "__module__", "").split(".")[0] == "comln":
            if not inspect.getdoc(value):
                yield name
            if isinstance(value, type):
                yield from undocumented_methods(name, value)


def undocumented_methods(name: str, owner: type) -> Iterator[str]:
    """Yield the public methods and properties of a class that neither it nor the class it comes from documents."""
    for attribute, member in vars(owner).items():
        if attribute.startswith("_") or not (inspect.isroutine(member) or isinstance(member, property)):
            continue
        if not any(inspect.getdoc(vars(base)[attribute]) for base in owner.__mro__ if attribute in vars(base)):
            yield f"{name}.{attribute}"


@pytest.mark.parametrize("module", [name for name in SOURCES if name != "comln.__main__"])
def test_every_public_name_exists_and_is_documented(module):
    loaded = importlib.import_module(module)
    if defines_names(module) and module != "comln":
        assert not list(undocumented(loaded))


# The public face


def test_public_face_is_small_and_every_name_resolves():
    assert len(comln.__all__) <= 20
    assert comln.__all__ == sorted(comln.__all__) and dir(comln) == comln.__all__
    for name in comln.__all__:
        assert getattr(comln, name) is not None


def test_public_face_says_which_name_it_lacks():
    with pytest.raises(AttributeError, match="module 'comln' has no attribute 'gradient_flo'"):
        comln.gradient_flo  # noqa: B018


def test_public_face_gives_type_checkers_the_same_names():
    block = next(node for node in tree("comln").body if isinstance(node, ast.If))
    typed = {
        alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    typed |= {
        node.target.id for node in block.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert typed == set(comln.__all__)


def loaded_by(code: str) -> set[str]:
    """Return the top-level packages that a new interpreter has imported after running `code`."""
    script = (
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    )
    return set(
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    )


def test_importing_the_package_imports_nothing_heavy():
    assert not loaded_by("import comln") & HEAVY


def test_help_imports_nothing_heavy():
    code = "import contextlib, io\nfrom comln.cli.main import run\n"
    code += "with contextlib.redirect_stdout(io.StringIO()): run(['--help'])"
    assert not loaded_by(code) & HEAVY


# What the tests themselves see


def test_the_checkout_is_tested_and_each_file_is_imported_once():
    """An installed copy of the package, or a second copy of a module under another name, would be tested by nobody."""
    assert Path(comln.__file__).parent == PACKAGE
    files = [
        module.__file__
        for module in list(sys.modules.values())
        if getattr(module, "__file__", None) and Path(str(module.__file__)).is_relative_to(PACKAGE)
    ]
    assert len(files) == len(set(files))


def test_the_type_hook_watches_the_package():
    from jaxtyping import TypeCheckError

    from comln.losses import CrossEntropy

    with pytest.raises(TypeCheckError):
        CrossEntropy().value("not an array", "neither")  # pyright: ignore[reportArgumentType]  # the point of the test
