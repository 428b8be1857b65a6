"""Where the classes and functions that a configuration names are defined, and which code they depend on.

Nothing is imported: a typo is answered, and a finished run recognized, without torch.
"""

import ast
import hashlib
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import resolve_name
from pathlib import Path

import fairsweep
from fairsweep.config import ConfigError

# Where installed packages and the standard library are: their version stands for their code.
INSTALLED = tuple(
    {
        *(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
    }
)
INSTALLED_FOLDERS = {"site-packages", "dist-packages"}

# Recorded with each run; a new version of these does not make finished runs stale.
NEUTRAL = {"torch", "numpy"}

# Packages that an extra installs.
EXTRAS = {"pytorch_optimizer": "optimizers"}

PACKAGE = Path(fairsweep.__file__).parent
# The code of ours that decides how a configuration trains: for all runs, and for those that name it.
TRAINING = "training/*.py"
NAMED = ("data", "losses", "models", "optimizers", "vision")
# Packages whose version is part of that code, where its module imports them at its top.
ITS_PACKAGES = {"torchvision", *EXTRAS}


def make_importable() -> None:
    """Let modules be imported from the folder in which the command was given, as with `python -m`."""
    if os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path has strings
        sys.path.insert(1, os.getcwd())  # noqa: PTH109


@cache
def find(module: str) -> ModuleSpec | None:
    """A module's location; None if there is no such module. Its packages are not imported."""
    make_importable()
    locations, found, name = None, None, ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        if found is not None and locations is None:  # not a package
            return None
        specs = (finder.find_spec(name, locations) for finder in sys.meta_path)
        found = next((spec for spec in specs if spec is not None), None)
        if found is None:
            return None
        locations = found.submodule_search_locations
    return found


def module_of(key: str, target: str) -> str:
    """The module that a target is in: its longest part that is one.

    Raises:
        ConfigError: not even its first part is; or it is in the standard library, which has nothing to train.
    """
    names = target.split(".")
    if names[0] in sys.stdlib_module_names:
        raise ConfigError(
            f"{key}={target}: is in Python's standard library, which has no {key.partition('.')[0]}; "
            "name a class of torch, of another package or of your own"
        )
    for count in range(len(names) - 1, 0, -1):
        if find(name := ".".join(names[:count])) is not None:
            return name
    if names[0] in EXTRAS:
        raise ConfigError(missing_extra(key, target, names[0]))
    raise ConfigError(
        f"{key}={target}: no module named {names[0]!r} in {Path.cwd()}, on PYTHONPATH or installed; "
        "run the command in the folder that contains it"
    )


def missing_extra(key: str, target: str, package: str) -> str:
    """The line for a target whose package is not installed."""
    return f"{key}={target}: {package} is not installed; pip install 'fairsweep[{EXTRAS[package]}]'"


def check(key: str, target: str) -> None:
    """Check that the module of a target exists, and the extra that it needs.

    Raises:
        ConfigError: one of them does not.
    """
    for package in dependencies(module_of(key, target))[1] & {*EXTRAS}:
        if find(package) is None:
            raise ConfigError(missing_extra(key, target, package))


def is_installed(path: Path) -> bool:
    """Whether a module's file belongs to an installed package or to the standard library."""
    return bool(INSTALLED_FOLDERS & {*path.parts}) or any(path.is_relative_to(root) for root in INSTALLED)


def imports(spec: ModuleSpec, path: Path, deep: bool = True) -> Iterator[str]:
    """Names that a source file imports: of modules, and of what may be one.

    Args:
        deep: anywhere in the file, inside of functions too.

    Raises:
        ConfigError: it is not valid Python, or imports relatively outside of a package.
    """
    package = spec.name if spec.submodule_search_locations is not None else spec.name.rpartition(".")[0]
    tree = parsed(path)
    for node in ast.walk(tree) if deep else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            if node.level:
                try:
                    base = resolve_name(base, package)
                except ImportError as error:
                    raise ConfigError(
                        f"{path}, line {node.lineno}: a relative import, which needs a package: run the "
                        "command in the folder above, and name the target by its package"
                    ) from error
            yield base
            names = [alias.name for alias in node.names]
            yield from (f"{base}.{name}" for name in (exported(base) if names == ["*"] else names))


def parsed(path: Path) -> ast.Module:
    """A source file as a tree.

    Raises:
        ConfigError: it is not valid Python.
    """
    try:
        return ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise ConfigError(f"{path}, line {error.lineno}: {error.msg}") from error


def exported(module: str) -> list[str]:
    """The names in the `__all__` of a user's module, which may be modules of its package."""
    spec = find(module)
    path = Path(spec.origin) if spec is not None and spec.has_location and spec.origin is not None else None
    if path is None or path.suffix != ".py" or is_installed(path):
        return []
    assigned = [node for node in parsed(path).body if "__all__" in ast.unparse(node)]
    constants = [one.value for node in assigned for one in ast.walk(node) if isinstance(one, ast.Constant)]
    return [value for value in constants if isinstance(value, str)]


@cache
def dependencies(module: str) -> tuple[dict[str, Path], set[str]]:
    """The files of a module and of all it imports, by name, and the installed packages among them.

    Files of installed packages are not followed. Of this package, only what configurations name.
    """
    files, packages, left = dict[str, Path](), set[str](), [module]
    while left:
        name = left.pop()
        top = name.partition(".")[0]
        spec = find(name)
        if name in files or spec is None or top in packages:
            continue
        if name.rpartition(".")[0]:
            left.append(name.rpartition(".")[0])  # its package, which is imported first
        path = Path(spec.origin) if spec.has_location and spec.origin is not None else None
        if top == PACKAGE.name:
            if path is not None and path.parent == PACKAGE and path.stem in NAMED:
                files[name] = path
                packages |= ITS_PACKAGES & {one.partition(".")[0] for one in imports(spec, path, deep=False)}
        elif top in sys.stdlib_module_names:
            continue
        elif path is not None and is_installed(path):
            packages.add(top)
        elif path is not None:
            files[name] = path
            if path.suffix == ".py":
                left += imports(spec, path)
    return files, packages


def versions(targets: Iterable[str]) -> dict[str, str]:
    """The versions of the installed packages, less torch and numpy, that these targets are in or import."""
    needed = {package for target in targets for package in dependencies(module_of("_target_", target))[1]}
    return {package: version_of(package) for package in sorted(needed - NEUTRAL)}


@cache
def version_of(package: str) -> str:
    """The version of the distribution that an importable package comes from."""
    try:
        return version(package)
    except PackageNotFoundError:
        names = packages_distributions().get(package, ())  # slow
        return " ".join(map(version, names)) or "unknown"


@cache
def code_hash(targets: tuple[str, ...]) -> str:
    """A hash (16 hex digits) of the code that decides how a configuration with these targets trains.

    It depends on our training code and, for each target, on the files of its module and of what that imports,
    or on the version of the package if it is an installed one.
    """
    files = {path.name: path for path in PACKAGE.glob(TRAINING)}
    for target in targets:
        files |= dependencies(module_of("_target_", target))[0]
    digest = hashlib.sha256(repr(versions(targets)).encode())
    for name, path in sorted(files.items()):
        digest.update(f"{name} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
