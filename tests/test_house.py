"""Which parts of the package may know which: the arrows go one way."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path("riemannopt_dist")
MODULES = {
    ".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in PACKAGE.rglob("*.py")
}
FORBIDDEN = {
    "reports": ("riemannopt_dist.run", "riemannopt_dist.commands", "torch", "ray"),
    "storage": ("riemannopt_dist.run", "riemannopt_dist.data", "torch", "ray"),
    "data": ("riemannopt_dist.run", "riemannopt_dist.estimators", "ray"),
    "quadrature/placement": ("riemannopt_dist.run", "torch", "ray"),
    "paths": ("riemannopt_dist.run", "riemannopt_dist.estimators", "ray"),
    "estimators": ("riemannopt_dist.run", "riemannopt_dist.metrics", "ray"),
    "rescale": ("riemannopt_dist.run", "riemannopt_dist.estimators", "ray"),
    "metrics": ("riemannopt_dist.run", "riemannopt_dist.reports", "ray"),
    "models": ("riemannopt_dist.run", "riemannopt_dist.estimators", "ray"),
    "run": ("riemannopt_dist.reports", "riemannopt_dist.commands"),
    "map_files": ("riemannopt_dist.estimators", "riemannopt_dist.commands", "torch", "ray"),
    "audit": ("riemannopt_dist.commands", "ray"),
    "testing": ("riemannopt_dist.commands", "ray"),
}
"""What the modules of a folder import neither at once nor later."""


def imported(path: Path, at_once: bool = False) -> Iterator[str]:
    """The modules that one imports: all, or those `at_once`, neither for types nor within functions."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        is_late = isinstance(node, ast.FunctionDef | ast.Lambda)
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not is_for_types and not (at_once and is_late):
            pending += ast.iter_child_nodes(node)


def below(name: str, parents: tuple[str, ...]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_a_part_does_not_know_what_is_above_it(folder: str) -> None:
    paths = list((PACKAGE / folder).rglob("*.py"))
    assert paths
    broken = {
        f"{path}: {name}"
        for path in paths
        for name in imported(path)
        if below(name, FORBIDDEN[folder])
        and not (folder == "run" and path.is_relative_to(PACKAGE / "run/ray"))
    }
    assert broken == set()


def test_ray_is_imported_in_its_folder_alone() -> None:
    inside = PACKAGE / "run/ray"
    importing = {path for path in MODULES.values() if any(below(name, ("ray",)) for name in imported(path))}
    assert importing
    assert {path for path in importing if not path.is_relative_to(inside)} == set()
    # Who needs that folder needs Ray: its commands, when they start it.
    users = {
        path
        for path in MODULES.values()
        if not path.is_relative_to(inside)
        and any(below(name, ("riemannopt_dist.run.ray",)) for name in imported(path))
    }
    assert users == {PACKAGE / "commands/evaluate.py"}


def test_no_modules_import_each_other() -> None:
    graph = {
        name: {other for other in imported(path, at_once=True) if other in MODULES and other != name}
        for name, path in MODULES.items()
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_a_worker_imports_no_schemas() -> None:
    """Those of configurations take half a second, of every actor's start."""
    pending, reached = ["riemannopt_dist.run.ray.worker", "riemannopt_dist.run.stages.evaluate"], set()
    while pending:
        name = pending.pop()
        if name in MODULES and name not in reached:
            reached.add(name)
            pending += imported(MODULES[name], at_once=True)
    assert [name for name in reached if below(name, ("riemannopt_dist.run.config",))] == []
    assert "riemannopt_dist.models.folding" in reached


def test_the_package_imports_next_to_nothing() -> None:
    """So that reading a run's results needs no torch; in some milliseconds."""
    code = (
        "import sys; before = {*sys.modules}; import riemannopt_dist; "
        "new = {name.partition('.')[0] for name in {*sys.modules} - before}; "
        "assert new <= {'riemannopt_dist'} | {*sys.stdlib_module_names}, new"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_every_module_says_what_it_is() -> None:
    without = [path for path in MODULES.values() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert without == []


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name}.{node.name}", node


OTHERS_SIGNATURES = ("riemannopt_dist.methods.attribute", "riemannopt_dist.captum.attribute")
"""The front door, which has every choice by name; and what is captum's."""


def test_functions_are_short_and_take_few_arguments() -> None:
    """At most 45 lines besides docstrings, and seven parameters of what is public but no command."""
    long = [name for name, node in functions() if _lines(node) > 45]
    assert long == []
    many = [
        name
        for name, node in functions()
        if len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]) - _is_method(node) > 7
        and not node.name.startswith("_")
        and not name.startswith("riemannopt_dist.commands.")
        and name not in OTHERS_SIGNATURES
    ]
    assert many == []


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """A function's lines, less those of its docstring."""
    text = node.body[0] if ast.get_docstring(node) else None
    told = 0 if text is None else (text.end_lineno or 0) - text.lineno + 1
    return (node.end_lineno or 0) - node.lineno + 1 - told


def _is_method(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return bool(node.args.args) and node.args.args[0].arg in ("self", "cls")
