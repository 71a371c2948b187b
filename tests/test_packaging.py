"""What pyproject.toml declares against what the package imports."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest

# Declared, and imported nowhere in the package.
NOT_IMPORTED = {
    "importlib-resources": "TensorFlow Datasets imports it and does not declare it",
    "tensorboard": "clu's TensorBoard writer imports it and does not declare it",
    "tensorflow": "takes the place of tensorflow-cpu on other machines",
    "tensorflow-cpu": "takes the place of tensorflow on Linux and x86",
}
# Imported, and not among what is always installed.
NOT_DECLARED = {
    "apache-beam": "an extra, for data sets that one machine can't prepare",
    "onnx": "an extra, to export what was trained",
    "jaxlib": "comes with jax, in the version that suits it",
}


def normalized(name):
    """The name of a distribution as packaging compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def declared(repo_root):
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    names = (re.split(r"[^\w.-]", text)[0] for text in project["dependencies"])
    return set(map(normalized, names))


@pytest.fixture(scope="module")
def imported(repo_root):
    """The distributions of all that the package imports, wherever in its files."""
    modules = set()
    for path in (repo_root / "audiojax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.split(".")[0])
    distributions = packages_distributions()
    return {
        normalized(distribution)
        for module in modules - sys.stdlib_module_names - {"audiojax"}
        for distribution in distributions.get(module, [module])
    }


def test_every_import_is_declared(declared, imported):
    assert imported - declared - NOT_DECLARED.keys() == set()


def test_every_declared_dependency_is_imported(declared, imported):
    assert declared - imported - NOT_IMPORTED.keys() == set()
