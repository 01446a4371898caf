"""Names of lwd in tests, benchmarks, experiments, examples and docs are there: ruff does not look, mypy reads only src.

The source is read, not run, which needs no torch and takes a second.
"""

import ast
import re
import textwrap
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src"
FOLDERS = ("tests", "benchmarks", "experiments")
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(str(file.relative_to(REPOSITORY)) for file in REPOSITORY.glob("docs/**/*.md")),
]


@cache
def parse(file):
    return ast.parse(file.read_text(), file)


def imported(tree):
    """(line, module, name) of each ``from lwd... import name``, at whatever depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lwd":
            yield from ((node.lineno, node.module, alias.name) for alias in node.names)


def touched(tree):
    """(line, module, name) of each ``lwd.room.name``: the module as far as there is one, and the name after it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.fullmatch(r"lwd(\.\w+)+", ast.unparse(node)):
            module, *names = ast.unparse(node).split(".")
            while len(names) > 1 and source(f"{module}.{names[0]}"):
                module = f"{module}.{names.pop(0)}"
            yield node.lineno, module, names[0]


@cache
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
    """Whether the module binds the name, or it is a submodule that ``__all__`` lists or that loads when touched."""
    if source(module) is None:
        return False
    listed = None if "__getattr__" in bound(module) else offered(module)
    return name in bound(module) or (source(f"{module}.{name}") is not None and (listed is None or name in listed))


def missing(found):
    """A line for each (place, line, module, name) that is not there."""
    return "\n".join(
        f"{place}:{line}: {module} has no {name}" for place, line, module, name in found if not exists(module, name)
    )


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_name_imported_from_lwd_exists(folder):
    files = sorted((REPOSITORY / folder).rglob("*.py"))
    found = [(file.relative_to(REPOSITORY), *line) for file in files for line in imported(parse(file))]
    assert found, "none was looked at"
    assert not missing(found)


@pytest.mark.parametrize("file", sorted(f"examples/{file.name}" for file in REPOSITORY.glob("examples/*.py")))
def test_every_name_in_the_examples_exists(file):
    found = [(file, *line) for line in touched(parse(REPOSITORY / file))]
    assert found, "none was looked at"
    assert not missing(found)


@pytest.mark.parametrize("file", PAGES)
def test_every_dotted_name_in_the_docs_exists(file):
    """``lwd.module.name`` in backticks or after ``:::``: the module, and the name in it, or any submodule."""
    absent = []
    for dotted in re.findall(r"(?:`|^::: )(lwd(?:\.\w+)+)", (REPOSITORY / file).read_text(), re.MULTILINE):
        module, _, name = dotted.rpartition(".")
        if source(dotted) is None and (source(module) is None or name not in bound(module)):
            absent.append(f"{file}: there is no {dotted}")
    assert not absent, "\n".join(absent)


@pytest.mark.parametrize("file", PAGES)
def test_every_name_in_the_code_of_the_docs_exists(file):
    blocks = re.findall(r"^ *```python\n(.*?)```", (REPOSITORY / file).read_text(), re.DOTALL | re.MULTILINE)
    trees = [ast.parse(textwrap.dedent(block), file) for block in blocks]
    assert not missing([(file, *line) for tree in trees for line in (*imported(tree), *touched(tree))])


@pytest.mark.parametrize("file", PAGES)
def test_every_file_named_in_the_docs_exists(file):
    """Paths in backticks and links, of what the repository holds; mkdocs checks the links among its own pages, too."""
    text = (REPOSITORY / file).read_text()
    named = re.findall(r"`((?:tests|benchmarks|configs|examples|experiments|src)/[\w./-]+)", text)
    linked = [] if file.startswith("docs/") else re.findall(r"\]\((?!http)([^)#]+)", text)
    assert not [path for path in (*named, *linked) if not (REPOSITORY / path).exists()]


@pytest.mark.parametrize("file", sorted(REPOSITORY.glob("docs/api/*.md")), ids=lambda file: file.stem)
def test_functions_named_like_their_file_are_on_their_page(file):
    """``::: lwd.probe`` shows what lwd.probe offers, but for `learn`, which it takes for the file of that name."""
    shown = set(re.findall(r"^::: (\S+)", file.read_text(), re.MULTILINE))
    for room in shown:
        hidden = [name for name in offered(room) or () if source(f"{room}.{name}")] if source(room) else []
        assert {f"{room}.{name}.{name}" for name in hidden} <= shown


def test_every_reference_page_is_in_the_navigation_and_every_room_for_users_has_one():
    pages = {file.stem for file in REPOSITORY.glob("docs/api/*.md")}
    assert (
        set(re.findall(r"^      - lwd\S*: api/(\w+)\.md$", (REPOSITORY / "mkdocs.yml").read_text(), re.MULTILINE))
        == pages
    )
    floors = re.search(r"^  \| 6 .*?^  \| 3 ", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)
    rooms = set(re.findall(r"`(\w+)`", floors[0]))
    internal = {"run", "datasets", "plots"}  # what the commands need; built-in data, the commands' pictures
    assert rooms - internal <= pages


@pytest.mark.parametrize("file", sorted(REPOSITORY.glob("docs/api/*.md")), ids=lambda file: file.stem)
def test_everything_on_a_reference_page_says_what_it_is(file):
    """mkdocstrings leaves out what has no docstring, without a word."""
    shown = re.findall(r"^::: (\S+)", file.read_text(), re.MULTILINE)
    named = [name for name in shown if source(name) is None]
    assert not [name for name in named if not described(*name.rsplit(".", 1))]


def described(module, name):
    """Whether the definition of a name has a docstring."""
    found = definition(module, name)
    return found is not None and ast.get_docstring(found) is not None


def definition(module, name):
    """The class or function that a module's name is, wherever it is from; None for anything else."""
    for node in parse(source(module)).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names} and source(node.module):
            return definition(node.module, name)
    return None


def takes(name, node):
    """(function, argument) of all that a documented function, or a class's constructor and methods, take."""
    if isinstance(node, ast.FunctionDef):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        yield from ((name, argument) for argument in arguments if argument and argument.annotation)
    else:
        constructed = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and (part.name == "__init__" or part.name[0] != "_"):
                yield from takes(f"{name}.{part.name}", part)
            elif isinstance(part, ast.AnnAssign) and constructed:
                yield name, part


NEVER_GIVEN_ONE_BY_USERS = {"Task.load", "Giver"}  # overridden by them, and called by `fit`; what `read_giver` returns


def test_whatever_takes_a_path_takes_it_as_text_too():
    """As every library a user knows does. That the function turns text into a Path, mypy sees."""
    shown = [
        name for file in REPOSITORY.glob("docs/api/*.md") for name in re.findall(r"^::: (\S+)", file.read_text(), re.M)
    ]
    names = {(room, name) for room in shown if source(room) for name in offered(room) or bound(room)}
    names |= {tuple(name.rsplit(".", 1)) for name in shown if source(name) is None} | {("lwd.config", "load")}
    found = {name: node for module, name in names if (node := definition(module, name)) and name[0] != "_"}
    kinds = [(name, ast.unparse(argument.annotation)) for each in found.items() for name, argument in takes(*each)]
    assert sum("str | Path" in kind for _, kind in kinds) > 40, "these were looked at"
    alone = {name for name, kind in kinds if re.search(r"\bPath\b", kind.replace("str | Path", ""))}
    assert alone == NEVER_GIVEN_ONE_BY_USERS


def test_no_folder_has_more_than_15_files():
    counts = {str(folder): len(list(folder.glob("*.py"))) for folder in (SOURCE / "lwd").rglob("*") if folder.is_dir()}
    assert not {folder: count for folder, count in counts.items() if count > 15}


def test_matplotlib_is_imported_where_something_is_drawn_not_with_the_module():
    """A stage that may draw starts without it; what only type checkers read is in an ``if``."""
    at_once = [
        f"{file.relative_to(SOURCE)}:{node.lineno}"
        for file in sorted((SOURCE / "lwd").rglob("*.py"))
        for node in parse(file).body
        if isinstance(node, ast.Import | ast.ImportFrom) and "matplotlib" in ast.unparse(node)
    ]
    assert at_once == []


OWNERS = {
    "open": {
        "files.py",  # whatever has no reader of its own
        "config.py",  # YAML
        "runtime/lock.py",
        "runtime/untrusted.py",  # what torch.save wrote
        "training/log_file.py",
        "data/remote/folder.py",  # a download, checked as it is written
        "data/remote/cache.py",  # room for one
        "images/decode.py",  # pictures
        "images/folder.py",  # labels.csv
        "images/npz.py",
        "images/tar.py",
        "datasets/fashion.py",  # IDX files
        "stages/encode/manifest.py",  # writes unreadable.csv
        "stages/report/page.py",  # the template, of the package
        "pipeline/pipeline.py",  # likewise a line of code
        "runtime/checkpoint.py",  # likewise what a checkpoint holds of text
        "training/trackers.py",  # a picture that the run just drew
        "recipes/__init__.py",  # of the package
    },
    "json": {"files.py"},
    "safetensors": {
        "runtime/checkpoint.py",
        "data/format.py",  # shards, mapped
        "evaluation/features.py",
        "stages/sample/blocks.py",
        "stages/train/power_ema.py",  # snapshots, after their checksums
        "stages/train/export.py",  # likewise
    },
    "torch": {"runtime/untrusted.py", "data/stats.py"},
    "rmtree": {"files.py"},
    "list": {
        "files.py",
        "images/tar.py",  # a pattern of tar files
        "images/walk.py",  # folders of other people
        "recipes/__init__.py",  # of the package
        "stages/watch/rows.py",  # folders of any kind, among them runs
        # What follows lists folders that lwd itself filled.
        "data/remote/cache.py",
        "runtime/checkpoint.py",
        "training/keeper.py",
        "training/power_ema.py",
        "training/previews.py",
        "stages/encode/run.py",
        "stages/encode/manifest.py",
        "stages/sample/run.py",
        "stages/evaluate/run.py",
        "stages/report/about.py",
        "stages/report/comparison.py",
        "stages/report/samples.py",
    },
}
"""Who may touch the file system, by way of doing so, with the reason where the name does not say it."""

METHODS = {"open", "read_text", "write_text", "read_bytes", "write_bytes"}
CALLS = {
    **dict.fromkeys(("open", "os.open", "io.open", "gzip.open", "os.fdopen", "Image.open"), "open"),
    **dict.fromkeys(("json.load", "json.loads"), "json"),
    **dict.fromkeys(("save_file", "load_file", "safe_open"), "safetensors"),
    **dict.fromkeys(("torch.load", "torch.save"), "torch"),
    **dict.fromkeys(("shutil.rmtree", "rmtree"), "rmtree"),
    **dict.fromkeys(("glob.glob", "glob.iglob", "os.listdir", "os.walk", "os.scandir"), "list"),
}


def touches(tree):
    """(line, way) of each call in a module that opens, parses, lists or removes files."""
    own = {name.split(".")[-1] for name in bound_from(tree)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in CALLS:
            yield node.lineno, CALLS[name]
        elif isinstance(node.func, ast.Attribute) and name.split(".")[0] not in own:
            if node.func.attr in METHODS:
                yield node.lineno, "open"
            elif node.func.attr in ("glob", "rglob", "iterdir"):
                yield node.lineno, "list"


def bound_from(tree):
    """The names that a module imports from elsewhere, whose attributes are no paths."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name) for alias in node.names if alias.name != "Path")


@cache
def touching():
    """(file, line, way) of all of them."""
    files = sorted((SOURCE / "lwd").rglob("*.py"))
    return [(str(file.relative_to(SOURCE / "lwd")), *found) for file in files for found in touches(parse(file))]


def test_files_are_opened_parsed_listed_and_removed_where_that_is_at_home():
    """A new reader goes into the room that has the format, and there it meets the errors that are known of it."""
    strays = [f"{file}:{line}: {way}" for file, line, way in touching() if file not in OWNERS[way]]
    assert not strays, "; ".join(strays)


def test_every_owner_needs_to_be_one():
    used = {(way, file) for file, _, way in touching()}
    idle = {(way, file) for way, files in OWNERS.items() for file in files} - used
    assert not idle


def test_what_touches_a_file():
    text = """
        import json, torch
        from PIL import Image
        open(p); p.read_text(); Path(p).open("rb"); Image.open(p); json.loads(t); shutil.rmtree(p); p.iterdir()
        Image.new("RGB", (1, 1)); webbrowser.get().open_new(p); json.dumps(x); p.is_file(); archive.infolist()
    """
    ways = [way for _, way in touches(ast.parse(textwrap.dedent(text)))]
    assert sorted(ways) == ["json", "list", "open", "open", "open", "open", "rmtree"]


def test_what_exists():
    assert exists("lwd.sample", "generate") and exists("lwd.runtime", "team") and exists("lwd", "stages")
    assert exists("lwd.runtime.team", "GRACE_S") and exists("lwd.runtime.team", "wait")
    for module, name in [
        ("lwd.sample", "stream"),
        ("lwd.sampel", "run"),
        ("lwd", "nothing"),
        ("lwd.cli.main", "nothing"),
    ]:
        assert not exists(module, name)
