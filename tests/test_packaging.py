"""What pyproject.toml declares against what the package imports."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
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


def test_every_package_is_in_the_wheel(repo_root):
    setup = tomllib.loads((repo_root / "pyproject.toml").read_text())["tool"]
    places = setup["setuptools"]["package-dir"]
    folders = {
        places.get(name, name.replace(".", "/"))
        for name in setup["setuptools"]["packages"]
    }
    found = {
        str(path.parent.relative_to(repo_root))
        for folder in ("audiojax", "configs")
        for path in (repo_root / folder).rglob("__init__.py")
    }
    assert folders == found | {"weights"}
    patterns = setup["setuptools"]["package-data"]["audiojax.weights"]
    files = set((repo_root / "weights").iterdir())
    assert {p for n in patterns for p in (repo_root / "weights").glob(n)} == files


WITH_THE_WHEEL = """
import numpy as np, soundfile
soundfile.write("a.wav", np.random.default_rng(0).normal(0, 0.1, 48000), 16000)
"""


@pytest.mark.slow
def test_a_wheel_stands_alone(repo_root, tmp_path):
    """Installed elsewhere it trains from its own weights, and predicts."""
    source, empty = tmp_path / "source", tmp_path / "empty"
    for folder in ("audiojax", "configs", "weights"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repo_root / folder, source / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repo_root / name, source)
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheels = tmp_path / "wheels"
    subprocess.run(
        [*pip, "wheel", "--no-deps", f"--wheel-dir={wheels}", source], check=True
    )
    (wheel,) = wheels.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    install = ["--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run([*pip, *install], check=True)
    # What it depends on is seen where the tests have it; this project is not.
    (site,) = (tmp_path / "venv").glob("lib/*/site-packages")
    (site / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    hidden = ("PYTHONPATH", "AUDIOJAX_WEIGHTS", "XLA_FLAGS")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(repo_root / ".pytest_cache" / "xla")

    def run(*arguments):
        done = subprocess.run(
            [python, *arguments],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    place = run("-c", "import audiojax; print(audiojax.__file__)")
    assert place.startswith(str(tmp_path))
    small = ("n_mels=32", "frames=32")
    options = [f"--config.features.{option}" for option in small]
    options += ["--config.epochs=1", "--config.optimizer.warmup_epochs=0.0"]
    options += ["--config.tensorboard=False", f"--config.data.data_dir={tmp_path}"]
    trained = run("-m", "audiojax.main", "--config", "configs/demo.py", *options)
    assert "runs/demo/results.json" in trained
    run("-c", WITH_THE_WHEEL)
    predicted = run("-m", "audiojax.predict", "runs/demo", "a.wav", "--format=csv")
    header, first, *_ = predicted.splitlines()
    assert header.startswith("file,part")
    assert first.startswith("a.wav,whole,0.000,3.000,1,")


def test_every_import_is_declared(declared, imported):
    assert imported - declared - NOT_DECLARED.keys() == set()


def test_every_declared_dependency_is_imported(declared, imported):
    assert declared - imported - NOT_IMPORTED.keys() == set()
