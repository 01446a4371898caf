"""What tests, benchmarks and experiments import from lwd is there: ruff does not look, and mypy reads only src."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("tests", "benchmarks", "experiments")


def imported(file):
    """(line, module, name) of each ``from lwd... import name``, at whatever depth of the file."""
    for node in ast.walk(ast.parse(file.read_text(), file)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lwd":
            yield from ((node.lineno, node.module, alias.name) for alias in node.names)


def exists(module, name):
    try:
        return hasattr(import_module(module), name) or bool(import_module(f"{module}.{name}"))
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_name_imported_from_lwd_exists(folder):
    files = sorted((REPOSITORY / folder).rglob("*.py"))
    found = [(file.relative_to(REPOSITORY), *line) for file in files for line in imported(file)]
    assert found, "none was looked at"
    missing = [
        f"{file}:{line}: {module} has no {name}" for file, line, module, name in found if not exists(module, name)
    ]
    assert not missing, "\n".join(missing)
