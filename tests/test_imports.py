"""Names of lwd in tests, benchmarks, experiments and docs are there: ruff does not look, and mypy reads only src.

The source is read, not run, which needs no torch and takes a second.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src"
FOLDERS = ("tests", "benchmarks", "experiments")


def parse(file):
    return ast.parse(file.read_text(), file)


def imported(file):
    """(line, module, name) of each ``from lwd... import name``, at whatever depth of the file."""
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lwd":
            yield from ((node.lineno, node.module, alias.name) for alias in node.names)


def source(module):
    """The file of a dotted module, or None."""
    path = SOURCE.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def bound(module):
    """The names that a module's own statements bind, outside its functions and classes."""
    names, todo = set(), list(parse(source(module)).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        else:
            todo.extend(ast.iter_child_nodes(node))
    return names


@cache
def offered(package):
    """What the package's ``__all__`` lists, or None where it has none."""
    for node in parse(source(package)).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


def exists(module, name):
    """Whether the module binds the name, or it is a submodule; where there is an ``__all__``, one that this lists."""
    if source(module) is None:
        return False
    listed = offered(module)
    return name in bound(module) or (source(f"{module}.{name}") is not None and (listed is None or name in listed))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_name_imported_from_lwd_exists(folder):
    files = sorted((REPOSITORY / folder).rglob("*.py"))
    found = [(file.relative_to(REPOSITORY), *line) for file in files for line in imported(file)]
    assert found, "none was looked at"
    missing = [
        f"{file}:{line}: {module} has no {name}" for file, line, module, name in found if not exists(module, name)
    ]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("file", ["README.md", *sorted(f"docs/{file.name}" for file in REPOSITORY.glob("docs/*.md"))])
def test_every_dotted_name_in_the_docs_exists(file):
    """``lwd.module.name`` in backticks: the module, and the name in it; docs may name any submodule."""
    missing = []
    for dotted in re.findall(r"`(lwd(?:\.\w+)+)", (REPOSITORY / file).read_text()):
        module, _, name = dotted.rpartition(".")
        if source(dotted) is None and (source(module) is None or name not in bound(module)):
            missing.append(f"{file}: there is no {dotted}")
    assert not missing, "\n".join(missing)


def test_matplotlib_is_imported_where_something_is_drawn_not_with_the_module():
    """A stage that may draw starts without it; what only type checkers read is in an ``if``."""
    at_once = [
        f"{file.relative_to(SOURCE)}:{node.lineno}"
        for file in sorted((SOURCE / "lwd").rglob("*.py"))
        for node in parse(file).body
        if isinstance(node, ast.Import | ast.ImportFrom) and "matplotlib" in ast.unparse(node)
    ]
    assert at_once == []


def test_what_exists():
    assert exists("lwd.sample", "generate") and exists("lwd.runtime", "team") and exists("lwd", "train")
    assert exists("lwd.runtime.team", "GRACE_S") and exists("lwd.runtime.team", "wait")
    for module, name in [
        ("lwd.sample", "stream"),
        ("lwd.sampel", "run"),
        ("lwd", "nothing"),
        ("lwd.cli.main", "nothing"),
    ]:
        assert not exists(module, name)
