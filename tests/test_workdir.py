import hashlib
import logging
import os
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from audiojax import classifier, files
from audiojax.errors import InputError
from audiojax.training import sweep, trainer
from audiojax.training.checkpoints import Checkpoints
from audiojax.workdir import Run, Workdir, as_config
from tests import processes, tiny

RUN = "fold1-seed0"


@pytest.fixture
def old(repo_root, tmp_path):
    """A workdir of checkpoints in one item; see make.py beside it."""
    shutil.copytree(repo_root / "tests/golden/one_item/workdir", tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """As in tests/golden/one_item/make.py."""
    config = tiny.get_config()
    config.data.data_dir = str(tmp_path_factory.mktemp("data"))
    config.sweep.folds, config.sweep.validation = (1,), "fold"
    config.epochs = 3
    return config.lock()


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    return workdir, sweep.train(config, workdir)


def content(folder):
    return {
        path.relative_to(folder): (
            path.stat().st_mtime_ns,
            path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in folder.rglob("*")
    }


def test_one_item_is_still_scored(old, config):
    found = sweep.evaluate(config, old)
    (run,) = files.read_json(old / "results.json")["runs"]
    for which in ("final", "best"):
        assert found["runs"][0][which]["accuracy"] == run[which]["accuracy"]
        assert found["runs"][0][which]["loss"] == pytest.approx(run[which]["loss"])


def test_a_config_that_lacks_later_fields_still_builds_its_classifier(old):
    """Whatever is read from a config to build one."""
    model, config = Workdir(old).classifier, Workdir(old).config
    asked = tiny.get_config()
    for name in ("model", "data", "features"):
        asked[name].update(as_config(config[name]))
    assert model == classifier.create(asked, model.classes, model.task)


def test_one_item_is_not_gone_on_from(old):
    with (
        Checkpoints(old / RUN / "checkpoints") as checkpoints,
        pytest.raises(InputError, match="an earlier version of audiojax"),
    ):
        checkpoints.restore(None)


def test_a_newer_format_is_refused(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "w")
    for path in (tmp_path / "w").rglob("manifest.json"):
        files.write_json(path, {**files.read_json(path), "format": 99})
    with pytest.raises(InputError, match="has format 99, and this version"):
        Workdir(tmp_path / "w").variables(Run(1, 0))


@pytest.mark.parametrize("which", ["last", "best"])
def test_classifier_and_variables_give_the_scores(trained, config, which):
    """Without the optimizer's state or the config that training had."""
    workdir, results = trained
    opened = Workdir(workdir)
    model, variables = opened.classifier, opened.variables(Run(1, 0), which)
    built = trainer.Trainer(config, trainer.open_data(config, sweep.load(config)))
    test = built.feed.split(1).test
    logits = np.concatenate(
        [
            np.asarray(model.logits(variables, jnp.asarray(batch["image"])))[
                batch["mask"] > 0
            ]
            for batch in built.feed.evaluation(test)
        ]
    )
    label = np.load(workdir / RUN / "predictions.npz")["label"]
    expected = results["runs"][0]["final" if which == "last" else "best"]
    assert np.mean(logits.argmax(1) == label) == expected["accuracy"]


def test_evaluation_changes_nothing_beside_a_damaged_checkpoint(
    trained, config, tmp_path, caplog
):
    shutil.copytree(trained[0], tmp_path / "w")
    folder = epath.Path(tmp_path / "w" / RUN / "checkpoints")
    shutil.copytree(folder / "12", folder / "13")
    largest = max(
        (p for p in (tmp_path / "w").glob(f"{RUN}/checkpoints/13/**/d/*")),
        key=lambda path: path.stat().st_size,
    )
    largest.write_bytes(largest.read_bytes()[:-1])
    (folder / "14.orbax-checkpoint-tmp").mkdir()
    before = content(tmp_path / "w")
    with caplog.at_level(logging.WARNING):
        found = sweep.evaluate(config, tmp_path / "w")
    assert f"{folder / '13'} can't be used" in caplog.text
    assert found["runs"][0]["final"] == trained[1]["runs"][0]["final"]
    assert content(tmp_path / "w") == before


def test_evaluation_needs_no_permission_to_write(trained, config, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(trained[0], workdir)
    for path in (workdir, *workdir.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    within = ()
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and there is no setpriv")
        lost = "-dac_override,-dac_read_search"
        within = ("setpriv", f"--bounding-set={lost}", f"--inh-caps={lost}")
    before = content(workdir)
    arguments = (
        *("--config=tests/tiny.py", "--mode=evaluate", f"--workdir={workdir}"),
        *("--config.sweep.folds=1,", "--config.sweep.validation=fold"),
        *("--config.epochs=3", f"--config.data.data_dir={config.data.data_dir}"),
    )
    status, out, err = processes.run(*arguments, devices=8, within=within)
    assert status == 0, err
    assert f"the same as {workdir}/results.json" in out
    assert content(workdir) == before


def test_reading_loads_no_training():
    rooms = ("workdir", "classifier", "ensemble", "report")
    heavy = ("tensorflow", "audiojax.training", "orbax.checkpoint")
    assert processes.loaded([f"audiojax.{room}" for room in rooms], heavy) == []
