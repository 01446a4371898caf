"""A page for each notebook, made when the pages are built: text, code, and the outputs that the notebook keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add notebooks/NAME.md for each notebooks/NAME.ipynb."""
    for notebook in sorted(Path(config.docs_dir).glob("notebooks/*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        parts = [_markdown(cell) for cell in cells]
        parts.insert(1, f"[The notebook itself]({notebook.name}){{ download }}")
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content="\n\n".join(parts)))
    return files


def _markdown(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    parts = [f"```python\n{source}\n```"]
    for output in cell["outputs"]:
        data = output.get("data", {"text/plain": output.get("text", [])})
        if "image/png" in data:
            parts.append(f"![What the cell shows](data:image/png;base64,{data['image/png'].strip()})")
        else:
            parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    return "\n\n".join(parts)
