import json

import numpy as np
import pytest

from audiojax.datasets import from_arrays
from audiojax.errors import InputError
from audiojax.training import results, sweep, trainer
from tests import tiny


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = tiny.get_config()
    config.data.data_dir = str(tmp_path_factory.mktemp("data"))
    config.sweep.seeds = (0, 1)
    return config.lock()


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    """A finished sweep of two folds and two seeds."""
    workdir = tmp_path_factory.mktemp("sweep")
    sweep.train(config, workdir)
    return workdir


def predictions(workdir, run):
    return np.load(workdir / run / "predictions.npz")


def test_results_follow_from_the_predictions(workdir):
    """Every number again, from predictions.npz, by arithmetic."""
    written = json.loads((workdir / "results.json").read_text())
    assert [(run["fold"], run["seed"]) for run in written["runs"]] == [
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]
    singles, ensembles = [], []
    for fold in (1, 2):
        members = [predictions(workdir, f"fold{fold}-seed{seed}") for seed in (0, 1)]
        label = members[0]["label"]
        singles.append([np.mean(m["logits"].argmax(1) == label) for m in members])
        mean = (members[0]["logits"].astype(float) + members[1]["logits"]) / 2
        ensembles.append(np.mean(mean.argmax(1) == label))
    found = [run["final"]["accuracy"] for run in written["runs"]]
    np.testing.assert_allclose(found, np.ravel(singles))
    by_fold = np.mean(singles, axis=1)
    assert [fold["single"] for fold in written["folds"]] == pytest.approx(by_fold)
    assert [fold["ensemble"] for fold in written["folds"]] == pytest.approx(ensembles)
    single, ensemble = written["summary"]["single"], written["summary"]["ensemble"]
    assert single["mean"] == pytest.approx(np.mean(singles))
    assert single["std"] == pytest.approx(np.std(by_fold))
    assert ensemble["mean"] == pytest.approx(np.mean(ensembles))


def test_every_test_clip_is_predicted_once(workdir):
    names = [predictions(workdir, f"fold{f}-seed0")["filename"] for f in (1, 2)]
    assert [len(set(n)) for n in names] == [80, 80]
    assert not set(names[0]) & set(names[1])


def test_workdir_holds_what_it_should(workdir):
    assert {path.name for path in workdir.iterdir()} == {
        "config.json",
        "results.json",
        "fold1-seed0",
        "fold1-seed1",
        "fold2-seed0",
        "fold2-seed1",
    }
    held = json.loads((workdir / "config.json").read_text())
    assert held["config"]["model"]["name"] == "tiny"
    assert set(held["versions"]) >= {"jax", "flax", "numpy", "python"}
    assert "cpu" in held["device"]


def test_longer_training_lowers_the_loss(workdir):
    lines = (workdir / "fold1-seed0" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["train_loss"] for line in lines]
    assert losses[1] < losses[0]


def test_finished_runs_are_not_repeated(config, workdir, monkeypatch):
    def never(*_):
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(trainer.Trainer, "train", never)
    before = (workdir / "results.json").read_bytes()
    sweep.train(config, workdir)
    assert (workdir / "results.json").read_bytes() == before


def test_evaluate_gives_the_same_numbers_from_the_checkpoints(config, workdir):
    found = sweep.evaluate(config, workdir)
    assert found == json.loads((workdir / "results.json").read_text())
    results.check_same(found, workdir)


def test_evaluate_says_what_is_not_the_same(config, workdir):
    found = sweep.evaluate(config, workdir)
    found["summary"]["single"]["mean"] = 2.0
    with pytest.raises(InputError, match="other summary"):
        results.check_same(found, workdir)


def test_a_workdir_of_another_config_is_refused(config, workdir):
    other = config.copy_and_resolve_references()
    other.batch_size, other.model.dropout = 48, 0.5
    with pytest.raises(InputError) as caught:
        sweep.train(other, workdir)
    assert "config.batch_size: there 64, here 48" in str(caught.value)
    assert "config.model.dropout: there 0.2, here 0.5" in str(caught.value)


@pytest.mark.parametrize("seeds", [(), (0, 0)])
def test_no_run_or_a_run_twice_is_refused(config, seeds):
    other = config.copy_and_resolve_references()
    other.sweep.seeds = seeds
    with pytest.raises(InputError, match="at least one number, none twice"):
        sweep.planned_runs(other)


def test_evaluating_nothing_is_said(config, tmp_path):
    with pytest.raises(InputError, match="train first"):
        sweep.evaluate(config, tmp_path)


def test_a_class_in_one_fold_trains_where_another_is_tested(tmp_path, caplog):
    """And is refused where its own fold is tested."""
    rng = np.random.default_rng(0)
    config = tiny.get_config()
    config.data.data_dir = str(tmp_path / "data")
    config.sweep.seeds = (0,)
    rate = config.features.sample_rate
    recordings = from_arrays(
        rng.uniform(-0.5, 0.5, (8, 2 * rate)).astype(np.float32),
        ["cat", "dog", "cat", "dog", "emu", "cat", "dog", "cat"],
        rate,
        fold=[1, 1, 1, 1, 2, 2, 2, 2],
    )
    assert "all clips of a class in one fold: 'emu' in 2" in caplog.text
    config.sweep.folds = (1,)
    trained = sweep.train(config, tmp_path / "one", recordings=recordings)
    assert [run["fold"] for run in trained["runs"]] == [1]
    config.sweep.folds = (2,)
    with pytest.raises(InputError, match="'emu' would be tested and never trained"):
        sweep.train(config, tmp_path / "two", recordings=recordings)
