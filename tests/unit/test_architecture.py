"""The layers of the package as a table: who may import what, nested imports included."""

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "dsdi_ray"
STDLIB = frozenset(sys.stdlib_module_names)

# Layer -> (layers or modules of the package, libraries); None: any library that is not banned.
BASE = {"taxonomy", "errors"}
CONFIGS = {"config", "sweep_config", "submissions", "tiny_recipes"}
BELOW = {"method", "storage", "progress", "reasons", *BASE}
ALL_BUT_RAY = {"vision", "report", *BELOW}
LAYERS: dict[str, tuple[set[str], set[str] | None]] = {
    "errors": (set(), set()),
    "taxonomy": ({"errors"}, {"yaml"}),
    "progress": (set(), {"tqdm"}),
    "reasons": (set(), set()),
    "settings_file": (BASE, {"pydantic", "yaml"}),
    "config": ({"settings_file", *BASE}, {"pydantic"}),
    "sweep_config": ({"settings_file", "config", *BASE}, {"pydantic"}),
    "submissions": ({"settings_file", *BASE}, {"pydantic"}),
    "tiny_recipes": ({"config", *BASE}, set()),
    "method": ({"method", *BASE}, {"numpy", "torch", "sklearn", "scipy"}),
    "storage": (BELOW, None),
    "vision": ({"vision", *BELOW}, None),
    "report": ({"report", *BELOW}, None),
    "synthetic": ({"synthetic", *BASE}, {"av", "PIL", "numpy"}),
    "distributed": ({"distributed", "synthetic", *CONFIGS, *ALL_BUT_RAY}, None),
    "cli": ({"cli", "distributed", "synthetic", "__init__", *CONFIGS, *ALL_BUT_RAY}, None),
    "__main__": ({"cli"}, set()),
    "__init__": (set(), set()),
    "jobs": ({"cli", "distributed", "synthetic", *CONFIGS, *ALL_BUT_RAY}, None),
}
BANNED = {
    "vision": {"ray", "pyarrow", "pandas", "duckdb"},
    "storage": {"ray", "timm", "torchvision", "decord", "av", "matplotlib"},
    "report": {"ray", "timm", "decord", "av"},
    "cli": {"ray"},
    "jobs": {"ray"},
}
HEAVY = {
    "ray", "torch", "torchvision", "timm", "decord", "av", "sklearn", "scipy", "pandas",
    "matplotlib",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One imported module and where it stands."""

    module: str
    line: int
    is_at_top: bool

    @property
    def library(self) -> str:
        return self.module.split(".")[0]


def imports_of(path: Path) -> list[Import]:
    """Every import of a file; those in functions and under TYPE_CHECKING are not at the top."""
    found: list[Import] = []

    def visit(node: ast.AST, *, at_top: bool) -> None:
        match node:
            case ast.Import(names=names):
                found.extend(Import(alias.name, node.lineno, at_top) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                assert level == 0, f"{path}:{node.lineno}: relative import"
                if module == "dsdi_ray":
                    found.extend(Import(f"dsdi_ray.{a.name}", node.lineno, at_top) for a in names)
                else:
                    found.append(Import(str(module), node.lineno, at_top))
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.iter_child_nodes(node):
            visit(child, at_top=at_top and not inside and not typing_only)

    visit(ast.parse(path.read_text("utf-8")), at_top=True)
    return found


def layer_of_module(module: str) -> str:
    """``dsdi_ray.storage.trec`` -> ``storage``; a name of the package itself -> ``__init__``."""
    parts = module.split(".")
    is_inside = len(parts) > 1 and any((PACKAGE / p).exists() for p in (parts[1], f"{parts[1]}.py"))
    return parts[1] if is_inside else "__init__"


def layer_of_file(path: Path) -> str:
    if path.is_relative_to(PACKAGE):
        return path.relative_to(PACKAGE).with_suffix("").parts[0]
    return "jobs"


FILES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "jobs").rglob("*.py")])


def problems_of(path: Path) -> list[str]:
    layer = layer_of_file(path)
    own, libraries = LAYERS[layer]
    problems = []
    for one in imports_of(path):
        where = f"{path.relative_to(ROOT)}:{one.line}: {layer} must not import {one.module}"
        if one.library == "dsdi_ray":
            if layer_of_module(one.module) not in own:
                problems.append(where)
        elif one.library in BANNED.get(layer, set()) or (
            libraries is not None and one.library not in libraries | STDLIB
        ):
            problems.append(where)
        if layer == "cli" and one.is_at_top and one.library in HEAVY:
            problems.append(f"{where} at module level")
    return problems


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_layer_may(path):
    assert problems_of(path) == []


def test_only_distributed_imports_ray():
    users = {layer_of_file(p) for p in FILES if any(i.library == "ray" for i in imports_of(p))}
    assert users <= {"distributed"}


def test_every_top_level_module_has_a_layer():
    assert {layer_of_file(path) for path in FILES} <= set(LAYERS)


def test_the_check_itself_sees_nested_and_conditional_imports(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "import os\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "class A:\n"
        "    def b(self):\n        try:\n            from ray.data import Dataset\n"
        "        except ImportError:\n            pass\n"
        "from dsdi_ray import config\n"
    )
    found = {(i.module, i.is_at_top) for i in imports_of(path)}
    assert found == {
        ("os", True),
        ("typing", True),
        ("torch", False),
        ("ray.data", False),
        ("dsdi_ray.config", True),
    }


def test_importing_the_command_line_loads_nothing_heavy():
    code = f"import sys, dsdi_ray.cli; print(*sorted({HEAVY | {'pyarrow', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_function_that_the_map_of_the_paper_names_exists():
    text = (PACKAGE / "method" / "README.md").read_text("utf-8")
    modules = {path.stem: path for path in (PACKAGE / "method").glob("*.py")}
    named = re.findall(r"`(\w+)\.(\w+)`", text)
    assert len(named) > 10
    for module, function in named:
        tree = ast.parse(modules[module].read_text("utf-8"))
        defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        assert function in defined, f"{module}.{function}"


@pytest.mark.parametrize(
    "module", ["distributed.index", "distributed.score", "distributed.rank", "storage.bundles"]
)
def test_what_trains_nothing_starts_without_a_network_library(module):
    code = f"import sys, dsdi_ray.{module}; print(*sorted({{'torch', 'timm'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
