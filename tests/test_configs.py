import importlib

import jax
import jax.numpy as jnp
import pytest
from flax import traverse_util

from audiojax import classifier, models
from audiojax.datasets import DATASETS
from audiojax.task import TASKS
from audiojax.training import study, trainer
from tests.conftest import REPO_ROOT

NAMES = sorted(
    path.stem
    for path in (REPO_ROOT / "configs").glob("*.py")
    if path.stem != "__init__"
)
# Of the published data: classes, folds that are tested on, seconds, Hz.
PUBLISHED = {
    "esc50": (50, (1, 2, 3, 4, 5), 5.0, 44100),
    "esc10": (10, (1, 2, 3, 4, 5), 5.0, 44100),
    "urbansound8k": (10, (1, 2, 3, 4, 5, 6, 7, 8, 9, 10), 4.0, 22050),
    "gtzan": (10, (1,), 30.0, 22050),
}
PAPER_MODELS = {
    "resnet": "resnet50",
    "densenet": "densenet201",
    "inception": "inception_v3",
}
# The paper's experiments, by file.
PAPER = {
    f"{kind}{data}_{family}": (data, name)
    for data in ("esc50", "urbansound8k", "gtzan")
    for family, name in PAPER_MODELS.items()
    for kind in ("", "study_")
}


def load(name):
    return importlib.import_module(f"configs.{name}").get_config()


def fields(config):
    return traverse_util.flatten_dict(config.to_dict())


@pytest.mark.parametrize("name", NAMES)
def test_a_config_changes_values_alone_and_names_what_there_is(name):
    config = load(name)
    own = {path for path in fields(config) if path[0] != "study"}
    assert own == fields(load("common")).keys()
    assert ("study" in config) == name.startswith("study_")
    assert config.data.name in DATASETS
    assert config.model.name in models.MODELS
    assert config.parallel in trainer.PARALLEL


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"common"}))
def test_a_config_tells_its_command(name):
    text = importlib.import_module(f"configs.{name}").__doc__ or ""
    config = load(name)
    command = "transfer" if name.startswith("study_") else "main"
    assert f"python -m audiojax.{command} --config configs/{name}.py" in text
    assert ("--config.data.source_dir=" in text) == (config.data.name != "synthetic")


@pytest.mark.parametrize("name", NAMES)
def test_a_config_describes_a_classifier_of_its_sounds(name):
    """Shapes alone: nothing is computed, no weights are read."""
    config = load(name)
    config.model.pretrained = None
    count, folds, seconds, rate = PUBLISHED.get(
        config.data.name,
        (3, config.sweep.folds, config.data.clip_seconds, config.features.sample_rate),
    )
    assert tuple(config.sweep.folds) == folds
    model = classifier.create(
        config, tuple(map(str, range(count))), TASKS["single_label"]
    )
    batch = {
        "audio": jax.ShapeDtypeStruct((2, round(seconds * rate)), jnp.float32),
        "length": jax.ShapeDtypeStruct((2,), jnp.int32),
    }
    if config.data.clip_mode != "stretch":
        del batch["length"]
    assert batch["audio"].shape[1] == model.clip_policy.num_samples
    image = jax.eval_shape(model.batch_image, batch)
    assert image.shape == (2, *model.image_shape)
    logits = jax.eval_shape(
        lambda key, image: model.logits(model.init(key), image),
        jax.random.key(0),
        image,
    )
    assert logits.shape == (2, count)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_no_wider_than_its_finest_window_has_frames(name):
    config = load(name)
    finest = 1000 * config.data.clip_seconds / min(config.features.hop_ms)
    assert config.features.frames <= finest


@pytest.mark.parametrize(("name", "of"), PAPER.items(), ids=PAPER)
def test_the_papers_experiments_follow_its_recipe(name, of):
    """arXiv 2007.11154, and its code where the text is silent."""
    config = load(name)
    assert (config.data.name, config.model.name) == of
    wide = config.data.name == "gtzan"
    high = config.data.name == "esc50"
    expected = {
        "data/clip_mode": "stretch" if config.data.name == "urbansound8k" else "pad",
        "features/n_fft": 4410 if high else 2205,
        "features/window_ms": (25, 50, 100),
        "features/hop_ms": (10, 25, 50),
        "features/n_mels": 128,
        "features/frames": 1500 if wide else 250,
        "data/stage": "audio",
        "augment/clean_copy": True,
        "augment/pitch_shift": (-2, 2),
        "augment/time_stretch": (0.9, 1.2),
        "model/pretrained": "imagenet",
        "model/standardize": False,
        "optimizer/name": "adam",
        "optimizer/learning_rate": 1e-4,
        "optimizer/weight_decay": 1e-3,
        "optimizer/schedule": "step",
        "optimizer/step_epochs": 30,
        "optimizer/step_factor": 0.1,
        "epochs": 70,
        "batch_size": 32,
    }
    found = {"/".join(path): value for path, value in fields(config).items()}
    assert {field: found[field] for field in expected} == expected
    of_paper = ("augment/clean_copy", "augment/pitch_shift", "augment/time_stretch")
    others = {x: found[x] for x in found if x.startswith("augment/")}
    assert not any(value for x, value in others.items() if x not in of_paper)


def test_parts_of_a_recipe_are_left_out_and_taken_in():
    module = importlib.import_module("configs.esc10_recipe")
    whole = fields(module.get_config())
    for sign, parts in (("without", module.WITHOUT), ("with", module.WITH)):
        for name, values in parts.items():
            found = fields(module.get_config(f"{sign}_{name}"))
            differ = {".".join(x) for x in found if found[x] != whole[x]}
            assert differ == set(values)
    with pytest.raises(ValueError, match=r"no part 'mixup' .*'without_mixup'"):
        module.get_config("mixup")


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("study_")])
def test_a_study_names_stages_and_layers_and_clips_enough_of_its_network(name):
    config = load(name)
    config.model.pretrained = "none.safetensors"  # nothing is fetched
    planned = study.plan(config.lock())
    kinds = [point.kind for point, _ in planned.points]
    chosen = len(config.study.stages)
    first = config.study.stages[0] == planned.stages[0]
    assert kinds.count("freeze") == kinds.count("fusion") == chosen
    assert kinds.count("cutoff") == chosen - first
