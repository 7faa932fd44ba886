"""The shape of the project: what is public, what may import what, how large a piece may be.

Which stage imports which is checked by import-linter (`make layers`); here is what it cannot see.
"""

import ast
import doctest
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import ember_xcs

ROOT = Path(__file__).parent.parent
PACKAGE = "ember_xcs"
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
LOADED_WHEN_USED = ["dask", "distributed", "equinox", "flax", "networkx", "optax", "pydantic"]
LOADED_WHEN_USED += ["ember_xcs._graph.drawing.svg", "ember_xcs._core.execution_options", "sqlite3"]
MAY_IMPORT_THE_FACADE = {"__main__.py"}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def _python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


LIBRARY = _python_files(PACKAGE)
SCRIPTS = _python_files("examples", "benchmarks")
NOTEBOOKS = sorted(
    path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)


def _examples() -> list[Path]:
    """Each script under examples/; of a folder with a `__main__.py`, that file alone."""
    files = _python_files("examples")
    programs = {path.parent for path in files if path.name == "__main__.py"}
    return [
        path
        for path in files
        if path.name == "__main__.py"
        or not (path.name.startswith("_") or programs & set(path.parents))
    ]


def _id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def each(name: str, paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(name, paths, ids=_id)


def _syntax_tree(path: Path) -> ast.Module:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
        text = re.sub(r"(?m)^\s*[%!].*$", "", text)
    return ast.parse(text)


def _imports(tree: ast.AST) -> Iterator[str]:
    """Each absolute import as a dotted name: `from a.b import c` is `a.b.c`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _attributes_of_the_facade(tree: ast.AST) -> Iterator[str]:
    """What is read as `xcs.name`, under whichever name ember_xcs was imported."""
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == PACKAGE
    }
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in names:
                yield f"{PACKAGE}.{attribute}"


def _is_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _is_public(name: str) -> bool:
    """Whether users may write this: a name of the facade, or one in a public module."""
    _, _, rest = name.partition(".")
    first = rest.partition(".")[0]
    if not rest or first in ember_xcs.__all__ or rest == "__version__":
        return True
    private = any(part.startswith("_") for part in rest.split("."))
    return not private and _is_module(f"{PACKAGE}.{first}")


def _lines_of_code(function: FUNCTIONS) -> int:
    """The lines from `def` to the last statement, without the docstring."""
    total = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is None:
        return total
    docstring = function.body[0]
    return total - (docstring.end_lineno - docstring.lineno + 1)


@each("path", LIBRARY + SCRIPTS)
def test_a_file_is_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{lines} lines: there are two ideas in it"


@each("path", LIBRARY + SCRIPTS)
def test_functions_are_short(path: Path) -> None:
    functions = [node for node in ast.walk(_syntax_tree(path)) if isinstance(node, FUNCTIONS)]
    lengths = {node.name: _lines_of_code(node) for node in functions}
    too_long = {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES}
    assert not too_long


@each("path", LIBRARY + SCRIPTS + NOTEBOOKS)
def test_private_modules_of_jax_are_not_imported(path: Path) -> None:
    tree = _syntax_tree(path)
    read = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    private = [name for name in [*_imports(tree), *read] if re.match(r"jax\._src\b", name)]
    assert not private


@each("path", [path for path in LIBRARY if path.name not in MAY_IMPORT_THE_FACADE])
def test_the_library_does_not_import_its_own_facade(path: Path) -> None:
    """Names come from the stage that defines them: imports through the facade go in circles."""
    through = [
        name
        for name in _imports(_syntax_tree(path))
        if name == PACKAGE
        or (name.startswith(f"{PACKAGE}.") and name.count(".") == 1 and not _is_module(name))
    ]
    assert not through


@each("path", SCRIPTS + NOTEBOOKS)
def test_user_code_uses_only_public_names(path: Path) -> None:
    tree = _syntax_tree(path)
    names = [name for name in _imports(tree) if name.split(".")[0] == PACKAGE]
    private = [name for name in [*names, *_attributes_of_the_facade(tree)] if not _is_public(name)]
    assert not private


def test_every_public_name_exists_once() -> None:
    missing = [name for name in ember_xcs.__all__ if not hasattr(ember_xcs, name)]
    repeated = [name for name, count in Counter(ember_xcs.__all__).items() if count > 1]
    assert (missing, repeated) == ([], [])


def test_every_public_name_says_what_it_is() -> None:
    silent = [
        name
        for name in ember_xcs.__all__
        if name != "__version__" and not inspect.cleandoc(getattr(ember_xcs, name).__doc__ or "")
    ]
    assert not silent


def test_importing_the_library_loads_nothing_that_only_some_programs_need() -> None:
    code = f"import sys, {PACKAGE}; print(*sorted(set(sys.modules) & set({LOADED_WHEN_USED})))"
    run = subprocess.run(
        [sys.executable, "-c", code], env=_of_a_user(), capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []


def _of_a_user() -> dict[str, str]:
    """The environment without the tests' devices, and without coverage, which loads SQLite."""
    ours = ("COV", "XLA_FLAGS", "PYTEST")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)}


def _run_alone(path: Path) -> subprocess.CompletedProcess[str]:
    """Runs an example as a user would."""
    if path.name == "__main__.py":
        target = ["-m", ".".join(path.parent.relative_to(ROOT).parts)]
    else:
        target = [str(path)]
    command = [sys.executable, *target]
    return subprocess.run(
        command, cwd=ROOT, env=_of_a_user(), capture_output=True, text=True, check=False
    )


def _promised_output(path: Path) -> str | None:
    """The indented block under `Prints::` in the header of an example."""
    header = ast.get_docstring(_syntax_tree(path)) or ""
    block = re.search(r"(?m)^Prints::\n((?:\n|[ \t]+.*(?:\n|\Z))+)", header)
    return inspect.cleandoc(block[1]) + "\n" if block else None


# It needs its models: tests/examples runs it where they are installed.
WITH_MODELS = ROOT / "examples" / "demo" / "__main__.py"


@each("path", [path for path in _examples() if path != WITH_MODELS])
def test_an_example_prints_what_its_header_says(path: Path) -> None:
    run = _run_alone(path)
    assert run.returncode == 0, run.stderr
    promised = _promised_output(path)
    if promised is None:
        assert path.name == "__main__.py", "its docstring has no `Prints::` with an indented block"
        assert run.stdout.strip(), "it prints nothing"
        return
    same = doctest.OutputChecker().check_output(
        promised, run.stdout, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert same, f"printed:\n{run.stdout}\npromised:\n{promised}"
