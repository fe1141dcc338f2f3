"""The house: what is exported, who may import whom, what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import mmsearch

PACKAGE = Path(mmsearch.__file__).parent
HEAVY = (
    "torch",
    "open_clip",
    "faiss",
    "onnxruntime",
    "sqlalchemy",
    "fastapi",
    "pydantic",
    "matplotlib",
    "PIL",
    "numpy",
    "rich",
    "alembic",
    "lark",
    "jinja2",
    "httpcore2",
    "textual_image",
)

# Lowest first; a module imports its own layer or lower ones.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "types", "settings"),
    (
        *("files", "metadata", "decode", "captions", "conditions", "expressions", "filters", "query"),
        *("combine", "words", "wording", "metrics", "fetching"),
    ),
    ("encoders", "vectors", "catalog", "nn"),
    (
        *("roots", "following", "refreshing", "captioning", "joining", "reading_text", "calibrating", "indexing"),
        *(
            "arranging",
            "composing",
            "views",
            "searching",
            "feedback",
            "explaining",
            "relevance",
            "tagging",
            "duplicates",
        ),
        *("labels", "describing", "facets", "projecting", "mapping", "watching"),
        *("adding", "verifying", "installation", "checkup", "testsets", "judging", "evaluation", "comparing"),
    ),
    ("engine",),
    ("training",),
    ("render",),
    ("server", "client"),
    ("cli",),
)


def room(module: str) -> str:
    """mmsearch.catalog.read -> catalog."""
    return module.split(".")[1]


def layer_of(name: str) -> int:
    found = [number for number, names in enumerate(LAYERS) if name in names]
    assert found, f"{name} has no layer: add it to LAYERS, and to DESIGN's house"
    return found[0]


def imports_of(path: Path) -> set[str]:
    """The modules of ours that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "mmsearch":
                found.update(f"mmsearch.{alias.name}" for alias in node.names)
            else:
                found.add(node.module or "")
    return {name for name in found if name.startswith("mmsearch.") and not name.startswith("mmsearch.__")}


def modules() -> list[tuple[str, Path]]:
    return [
        (".".join(("mmsearch", *path.relative_to(PACKAGE).with_suffix("").parts)), path)
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != PACKAGE / "__init__.py"
    ]


def test_modules_import_their_own_layer_or_lower_ones() -> None:
    wrong = []
    for name, path in modules():
        for imported in imports_of(path):
            if room(name) != room(imported) and layer_of(room(imported)) > layer_of(room(name)):
                wrong.append(f"{name} imports {imported}")
    assert wrong == []


def test_there_are_no_cycles() -> None:
    graph = {name.removesuffix(".__init__"): imports_of(path) for name, path in modules()}
    known = set(graph)
    # `from mmsearch.x import y` names the module x, or the module x.y
    edges = {name: {one for one in targets if one in known and one != name} for name, targets in graph.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for target in sorted(edges[name]):
                visit(target, (*above, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())


def test_the_public_door() -> None:
    assert mmsearch.__all__ == sorted(mmsearch.__all__)
    for name in mmsearch.__all__:
        assert getattr(mmsearch, name) is not None
    assert "no_such_name" not in dir(mmsearch)


def imported_by(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert imported_by("import mmsearch; mmsearch.Query, mmsearch.errors").isdisjoint(HEAVY)


def test_every_error_is_in_the_tree_of_its_module() -> None:
    tree = mmsearch.errors.__doc__
    assert tree is not None
    named = [name for name in vars(mmsearch.errors) if name.endswith("Error")]
    assert len(named) > 10
    assert [name for name in named if name not in tree] == []


def test_no_work_at_import_and_no_prints_in_the_library() -> None:
    printing = []
    for name, path in modules():
        if room(name) in ("cli", "training"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "exit"):
                printing.append(f"{name}:{node.lineno}")
    assert printing == []
