"""The direction of imports, the base install, and the names that the project may not contain."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "armed_model": "model",
    "armed": "impl",
    "armed_proofs": "proofs",
    "armed_conformance": "proofs",
    "armed_audit": "proofs",
}
MAY_IMPORT = {
    "armed": set(),
    "armed_model": set(),
    "armed_proofs": {"armed_model"},
    "armed_conformance": {"armed_model", "armed"},
    "armed_audit": {"armed_model", "armed", "armed_proofs", "armed_conformance"},
}
THIRD_PARTY = {
    "armed": set(),
    "armed_model": {"z3", "transitions"},
    "armed_proofs": {"z3", "cvc5"},
    "armed_conformance": {"hypothesis", "pytest", "psycopg", "elftools"},  # pytest for the base class of a suite
    "armed_audit": {"typer", "rich", "jinja2", "markupsafe"}
    | {"loky", "pebble", "mpire", "billiard", "matplotlib"},  # for `armed bench`
}


def files_of(package):
    return sorted((ROOT / PACKAGES[package] / package).rglob("*.py"))


def imports_of(source):
    """Return the top-level names that a module imports, also inside functions, and by importlib with a literal name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction"
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            found |= {arg.value.partition(".")[0] for arg in node.args if isinstance(arg, ast.Constant)}
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package):
    assert files_of(package), "there is nothing to look at"
    for file in files_of(package):
        used = imports_of(file.read_text()) - set(sys.stdlib_module_names) - {package}
        assert used <= MAY_IMPORT[package] | THIRD_PARTY[package], file


def test_the_lint_sees_every_way_to_import():
    source = "import a.b\nfrom c.d import e\ndef f():\n import g\n importlib.import_module('h.i')\n __import__('j')"
    assert imports_of(source) == {"a", "c", "g", "h", "j"}


def test_no_module_of_armed_imports_by_a_computed_name():
    for file in files_of("armed"):
        assert "importlib" not in file.read_text(), file
        assert "__import__" not in file.read_text(), file


def test_importing_armed_loads_nothing_but_the_standard_library():
    code = (
        "import sys; before = set(sys.modules); import armed, armed.testing; "
        "print(*{m.partition('.')[0] for m in set(sys.modules) - before})"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    names = set(loaded.stdout.split())
    assert "armed" in names
    assert names - {"armed", "__mp_main__"} <= set(sys.stdlib_module_names)  # multiprocessing's name for __main__


def test_importing_the_model_loads_neither_the_supervisor_nor_the_proofs():
    code = "import sys, armed_model.explore; print(*[m for m in sys.modules if m.startswith('armed')])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert {name.partition(".")[0] for name in loaded.stdout.split()} == {"armed_model"}


def test_the_base_install_has_no_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == []
    assert project["requires-python"] == ">=3.11"


def test_every_package_is_shipped_typed():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert sorted(packages["packages"]) == sorted(f"{folder}/{name}" for name, folder in PACKAGES.items())
    for name, folder in PACKAGES.items():
        assert (ROOT / folder / name / "py.typed").exists()


def test_only_what_is_agreed_stands_at_the_top_level():
    allowed = {"pyproject.toml", "model", "impl", "proofs", "tests", "docs", "README.md", "CHANGELOG.md"}
    allowed |= {"CONTRIBUTING.md", "LICENSE"}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    names = {line.partition("/")[0] for line in tracked.stdout.splitlines()} or set(allowed)
    assert {name for name in names if not name.startswith(".")} <= allowed
