"""Notebooks run without Jupyter, cell by cell. `python tests/notebooks.py FILE.ipynb` keeps what comes out."""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def run(path: Path) -> dict[str, Any]:
    """Execute a notebook in the current folder; returns it with the outputs that it has now, text and PNG pictures."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for count, cell in enumerate(code, 1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            value = _execute("".join(cell["source"]), names)
        cell["execution_count"] = count
        cell["outputs"] = []
        if printed.getvalue():
            lines = printed.getvalue().splitlines(keepends=True)
            cell["outputs"].append({"output_type": "stream", "name": "stdout", "text": lines})
        if value is not None:
            cell["outputs"].append(
                {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": _shown(value)}
            )
    return notebook


def _execute(source: str, names: dict[str, Any]) -> Any:
    """Run a cell; its value is that of a last line which is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)


def _shown(value: Any) -> dict[str, Any]:
    if hasattr(value, "_repr_png_"):
        return {"image/png": base64.b64encode(value._repr_png_()).decode(), "text/plain": ["a picture"]}
    return {"text/plain": repr(value).splitlines(keepends=True)}


if __name__ == "__main__":
    for name in sys.argv[1:]:
        file = Path(name).resolve()
        file.write_text(json.dumps(run(file), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
