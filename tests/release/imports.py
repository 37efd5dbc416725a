"""Which packages a bundle needs, read from its configs and the modules that they reach."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.bundles import zoo

_DOTTED = re.compile(r"\b[A-Za-z_]\w*(?:\.\w+)+|(?<=import )\w+")


def packages_reached(bundle: Path) -> set[str]:
    """Distributions whose modules are imported by what the bundle's configs name, but for optional ones."""
    words = {word for file in (bundle / "configs").glob("*.json") for word in _DOTTED.findall(file.read_text())}
    modules: set[str] = set()
    waiting = [*words, "common"]
    tops: set[str] = set()
    while waiting:
        word = waiting.pop()
        if word.split(".")[0] != "common":
            tops.add(word.split(".")[0])
            continue
        for module in _modules(word):
            if module not in modules:
                modules.add(module)
                waiting += imports(_file(module))
    for file in bundle.glob("**/*.py"):
        tops |= {name.split(".")[0] for name in imports(file)}
    return {package for top in tops if (package := _distribution(top))} - optional_packages()


@cache
def optional_packages() -> set[str]:
    """Packages that stand in an extra of pyproject.toml alone: features that say so where they are missing."""
    project = tomllib.loads((zoo.ROOT / "pyproject.toml").read_text())["project"]
    extras = {line for lines in project["optional-dependencies"].values() for line in lines}
    return _names_of(extras) - _names_of(project["dependencies"])


def imports(file: Path) -> list[str]:
    """Dotted names that a module imports anywhere, but for those that only a type checker reads."""
    return list(_names(ast.parse(file.read_text(encoding="utf-8"))))


def _names_of(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def _distribution(module: str) -> str | None:
    """The package that a module belongs to; of several the one that is called like it."""
    if module in sys.stdlib_module_names:
        return None
    try:  # one that is called like it: `itk` is spread over several
        return canonicalize_name(metadata.distribution(module).name)
    except metadata.PackageNotFoundError:
        return next(map(canonicalize_name, _distributions().get(module, [])), None)


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _names(child)


def _modules(dotted: str) -> list[str]:
    """The modules that importing a dotted name runs: each package on the way, and the module at its end."""
    parts = dotted.split(".")
    every = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return [module for module in every if _file(module).is_file()]


def _file(module: str) -> Path:
    path = zoo.ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
