"""The rooms of the project: who may import whom, and who loads what."""

import ast

import pytest

from tests import processes

# From the entrances down; a module imports only from lines below its own.
LEVELS = [
    ["__init__"],
    ["main", "transfer"],
    ["training"],
    ["explain", "compare"],
    ["report", "ensemble", "predict", "export"],
    ["study", "drawings", "html", "mistakes"],
    [
        "tables",
        "to_onnx",
        "to_stablehlo",
        "summary",
        "figures",
        "explainer",
        "pictures",
        "comparison",
    ],
    ["predictor"],
    ["inference", "methods", "runs"],
    ["workdir"],
    ["command", "checkpoint", "activations"],
    ["classifier", "datasets"],
    ["pretrained"],
    ["catalog", "scores", "calibration", "fingerprint", "similarity", "probe"],
    ["sounds", "audible"],
    ["task", "clips", "features", "models", "augment", "attribution"],
    ["locks", "files", "config"],
    ["errors", "xla", "memory"],
]
# The same inside of `training`.
TRAINING = [
    ["study"],
    ["grid", "measure"],
    ["sweep"],
    ["trainer", "results"],
    ["loop"],
    ["evaluate"],
    ["progress", "program", "feed"],
    ["steps"],
    ["checkpoints", "optimizer", "hosts", "signals"],
]


def imported(path):
    """Full names of all that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(folder):
    return sorted(folder.rglob("*.py"))


@pytest.fixture(params=["", "training"])
def house(request, repo_root):
    """A package, its name with a point, and the level of each of its rooms."""
    levels = TRAINING if request.param else LEVELS
    level = {name: i for i, names in enumerate(levels) for name in names}
    package = repo_root / "audiojax" / request.param
    return package, ".".join(filter(None, ["audiojax", request.param, ""])), level


def room(path, package):
    return path.relative_to(package).parts[0].removesuffix(".py")


def test_every_module_has_a_level(house):
    package, _, level = house
    rooms = {room(path, package) for path in sources(package)}
    assert rooms - {"__init__"} == set(level) - {"__init__"}


def test_imports_go_down_only(house):
    package, prefix, level = house
    upward = [
        f"{path.relative_to(package)} imports {name}"
        for path in sources(package)
        for name in imported(path)
        if name.startswith(prefix)
        and (above := name.removeprefix(prefix).split(".")[0]) in level
        and above != (here := room(path, package))
        and level[above] <= level[here]
    ]
    assert upward == []


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("tensorflow", ("audiojax/datasets/",)),
        ("tensorflow_datasets", ("audiojax/datasets/",)),
        ("clu", ("audiojax/training/progress.py",)),
        ("torch", ("scripts/",)),
        ("torchvision", ("scripts/",)),
    ],
)
def test_heavy_libraries_stay_in_their_rooms(repo_root, library, allowed):
    found = [
        str(path.relative_to(repo_root))
        for folder in ("audiojax", "configs", "scripts", "tests")
        for path in sources(repo_root / folder)
        if any(name.split(".")[0] == library for name in imported(path))
    ]
    strangers = [
        path for path in found if not path.startswith(allowed) and "test_" not in path
    ]
    assert strangers == []


# What uses a trained model, and what it may not need for that.
USERS = (
    *("predict", "predictor", "inference", "runs", "tables", "sounds"),
    *("ensemble", "workdir"),
    *("report", "mistakes", "summary", "figures", "calibration"),
    *("study", "drawings", "html"),
    *("explain", "explainer", "methods", "attribution", "audible", "pictures"),
    *("similarity", "probe", "activations", "comparison"),
)


@pytest.mark.parametrize("user", USERS)
def test_what_uses_a_trained_model_imports_no_training_and_no_data_set(repo_root, user):
    names = set(imported(repo_root / "audiojax" / f"{user}.py"))
    forbidden = ("audiojax.training", "audiojax.datasets", "tensorflow", "orbax", "clu")
    assert [name for name in names if name.startswith(forbidden)] == []


def test_models_features_and_weights_load_no_other_framework():
    rooms = ("models", "features", "pretrained", "classifier")
    heavy = ("tensorflow", "torch", "clu")
    assert processes.loaded([f"audiojax.{room}" for room in rooms], heavy) == []
