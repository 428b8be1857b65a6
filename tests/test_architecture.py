"""Imports go down only, and what is slow to import stays out of the modules that answer first."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fairsweep.config import ROOT

SRC = ROOT / "src"
ENTRY = "entry points and plugins"
BASE = "modules that everything may use"

# Each package may import those before it. Some modules of training are outside its folder, as configurations
# and recorded runs name what is in them.
ORDER = (BASE, "cli", "training", "runs", "launch", "sweeps", "compare", ENTRY)
PLACES = dict.fromkeys(("data", "losses", "models", "optimizers", "vision"), "training")
# What these import when they are imported, directly or not, is imported before a typo is answered.
FIRST = (
    "config", "cli.entry", "training.sources", "runs.folder", "runs.session", "runs.tracking",
    "runs.uploader", "runs.progress",
)  # fmt: skip
SLOW = ("torch", "torchvision", "mlflow", "matplotlib", "sklearn", "scipy", "pandas")


class Import(NamedTuple):
    """`name` is imported by `module`: at once, or within a function; for type checkers only, or not."""

    module: str
    name: str
    late: bool
    typing: bool


def modules() -> dict[str, Path]:
    """Each source file by its dotted name below src/; a package by that of its folder."""
    found = {}
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(module: str) -> list[Import]:
    tree = ast.parse(MODULES[module].read_text())
    found: list[Import] = []

    def walk(node: ast.AST, late: bool, typing: bool) -> None:
        for child in ast.iter_child_nodes(node):
            inside = late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            unreal = typing or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
            if isinstance(child, ast.Import):
                found.extend(Import(module, alias.name, late, typing) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module}: imports are absolute here"
                for alias in child.names:
                    whole = f"{child.module}.{alias.name}"
                    name = whole if whole in MODULES else str(child.module)
                    found.append(Import(module, name, late, typing))
            walk(child, inside, unreal)

    walk(tree, late=False, typing=False)
    return found


ALL = [entry for module in MODULES for entry in imports(module)]


def package(module: str) -> str:
    """`fairsweep.sweeps.arms` is in the package `sweeps`."""
    parts = module.split(".")
    if parts[0] != "fairsweep":
        return ENTRY
    return PLACES.get(parts[1], parts[1] if parts[1] in ORDER else BASE)


def ours(entries: list[Import]) -> Iterator[Import]:
    return (e for e in entries if e.name in MODULES and e.name != "fairsweep")


def test_the_walk_sees_the_project() -> None:
    assert {"train", "fairsweep.config", "fairsweep.training.build"} <= set(MODULES)
    assert Import("fairsweep.training.build", "fairsweep.config", False, False) in ALL
    assert any(e.late and e.name == "fairsweep.training.loop" for e in imports("fairsweep.runs.session"))
    assert {package(module) for module in MODULES if module != "fairsweep"} == set(ORDER)


@pytest.mark.parametrize("module", [module for module in MODULES if module != "fairsweep"])
def test_packages_import_in_one_direction(module: str) -> None:
    place = ORDER.index(package(module))
    for entry in ours(imports(module)):
        assert ORDER.index(package(entry.name)) <= place, f"{module} imports {entry.name}, which is above it"
        assert package(entry.name) != ENTRY or module == entry.name, f"{module} imports an entry point"


def test_the_picture_in_the_docs_shows_which_package_imports_which() -> None:
    picture = (ROOT / "docs" / "architecture.md").read_text().partition("```mermaid")[2].partition("```")[0]
    drawn = set()
    for line in picture.splitlines():
        start, arrow, goals = line.partition(" --> ")
        if arrow:
            drawn |= {(start.strip().partition("[")[0], goal) for goal in goals.split(" & ")}
    names = {name: name for name in ORDER} | {ENTRY: "entry"}
    found = {
        (names[package(entry.module)], names[package(entry.name)])
        for entry in ours(ALL)
        if entry.module != "fairsweep" and BASE not in (package(entry.module), package(entry.name))
    }
    assert drawn == {(start, goal) for start, goal in found if start != goal}


def test_no_modules_import_each_other_not_even_for_type_checkers() -> None:
    below = {m: {e.name for e in ours(imports(m))} - {m} for m in MODULES}
    while leaves := [module for module, names in below.items() if not names]:
        for leaf in leaves:
            del below[leaf]
            for names in below.values():
                names.discard(leaf)
    assert not below, f"a circle among {sorted(below)}"


def test_the_package_itself_imports_nothing() -> None:
    assert not imports("fairsweep")


def imported_first(module: str) -> set[str]:
    """All that importing this module imports, directly or not."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        for entry in imports(name) if name in MODULES else []:
            if not entry.late and not entry.typing and entry.name not in seen:
                seen.add(entry.name)
                todo.append(entry.name)
    return seen


ENTRY_POINTS = sorted(path.stem for path in SRC.glob("*.py"))


@pytest.mark.parametrize("module", [*ENTRY_POINTS, *(f"fairsweep.{name}" for name in FIRST)])
def test_what_answers_first_imports_nothing_slow(module: str) -> None:
    slow = {name for name in imported_first(module) if name.split(".")[0] in SLOW}
    assert not slow, f"importing {module} imports {sorted(slow)}"


def test_only_tracking_and_cleaning_write_to_mlflow_and_only_reports_read_from_it() -> None:
    users = {e.module for e in ALL if e.name.split(".")[0] == "mlflow" and not e.typing}
    assert users == {
        "fairsweep.runs.store", "fairsweep.runs.tracking", "fairsweep.runs.mlflow_run",
        "fairsweep.runs.mlflow_sweep", "fairsweep.sweeps.cleaning", "fairsweep.compare.mlflow_source",
    }  # fmt: skip


def test_nobody_uses_pyplot() -> None:
    assert not [e.module for e in ALL if "pyplot" in e.name]
    assert not [name for name, path in MODULES.items() if "import pyplot" in path.read_text()]


def test_only_build_makes_objects_out_of_names() -> None:
    def callers(*names: str) -> set[str]:
        return {
            module
            for module, path in MODULES.items()
            for node in ast.walk(ast.parse(path.read_text()))
            if (isinstance(node, ast.Attribute) and node.attr in names)
            or (isinstance(node, ast.Name) and node.id in names)
            or (isinstance(node, ast.alias) and node.name in names)
        }

    assert callers("import_module") == {"fairsweep.training.build"}
    assert callers("instantiate", "get_class", "get_method", "get_object") == set()


def test_no_file_is_unpickled() -> None:
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            assert name not in ("pickle.load", "pickle.Unpickler"), module
            # Copies of configurations, made in this process, are no files.
            assert name != "pickle.loads" or module == "fairsweep.sweeps.compose"
            if name == "torch.load":
                assert {k.arg: ast.unparse(k.value) for k in node.keywords}["weights_only"] == "True", module


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_entry_points_are_lists_of_steps(name: str) -> None:
    assert len(MODULES[name].read_text().splitlines()) < 60


def test_nothing_hides_the_installed_hydra_plugins() -> None:
    assert not (SRC / "hydra_plugins" / "__init__.py").exists()
