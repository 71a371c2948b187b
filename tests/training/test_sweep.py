import json

import numpy as np
import pytest

from audiojax import config as configs
from audiojax import files, locks
from audiojax.datasets import from_arrays
from audiojax.datasets.layouts import synthetic
from audiojax.errors import InputError
from audiojax.training import hosts, results, sweep, trainer
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
        "data.json",
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
    assert found == files.read_sealed(workdir / "results.json", "")
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


def never_loaded(config):
    raise AssertionError("data were touched")


BAD = [
    ({"sweep.seeds": (1, 1)}, "config.sweep.seeds is (1, 1); give each"),
    ({"parallel": "pipeline"}, "config.parallel is 'pipeline'; choose one of auto"),
    ({"epochs": 0}, "config.epochs is 0; give at least 1"),
    ({"batch_size": 0}, "config.batch_size is 0; give at least 1"),
    ({"accumulate": 0}, "config.accumulate is 0, and config.batch_size 64 can't be"),
    ({"accumulate": 3}, "config.accumulate is 3, and config.batch_size 64 can't be"),
    ({"evaluate_every_epochs": -1}, "config.evaluate_every_epochs is -1; give at"),
    ({"checkpoint_seconds": -1.0}, "config.checkpoint_seconds is -1.0; give at"),
    ({"max_skipped_in_a_row": 0}, "config.max_skipped_in_a_row is 0; give at"),
    ({"optimizer.name": "adem"}, "config.optimizer.name is 'adem'; choose one of"),
    ({"optimizer.schedule": "linear"}, "config.optimizer.schedule is 'linear'"),
    ({"optimizer.decay": "most"}, "config.optimizer.decay is 'most'; choose one of"),
    ({"optimizer.clip_norm": -1.0}, "config.optimizer.clip_norm is -1.0; give 0"),
    ({"optimizer.label_smoothing": 1.0}, "config.optimizer.label_smoothing is 1.0; "),
    ({"optimizer.ema_decay": 1.0}, "config.optimizer.ema_decay is 1.0; give a share"),
    ({"optimizer.head_factor": 0.0}, "config.optimizer.head_factor is 0.0; give a"),
    ({"optimizer.layer_decay": 2.0}, "config.optimizer.layer_decay is 2.0; give a"),
    ({"epochs": 3, "optimizer.warmup_epochs": 3.0}, "optimizer.warmup_epochs is 3.0"),
    ({"data.stage": "waveform"}, "config.data.stage is 'waveform'; choose spectrogr"),
    ({"data.balance": "oversample"}, "config.data.balance is 'oversample'; choose"),
    ({"data.split": "leave"}, "config.data.split is 'leave'; give one of None"),
    ({"data.on_bad_file": "stop"}, "config.data.on_bad_file is 'stop'; give one of"),
    ({"data.num_folds": 1}, "num_folds is 1; give at least 2"),
    ({"data.clip_mode": "loop"}, "config.data.clip_mode is 'loop'; choose one of pad"),
    ({"data.clip_seconds": 0.0}, "config.data.clip_seconds makes clips of 0 samples"),
    ({"data.clip_seconds": 0.01}, "n_fft=2205 needs at least 1103"),
    ({"features.n_mels": 0}, "n_mels=0: expected positive numbers only"),
    ({"features.n_mels": 900}, "mel bands hold no frequency"),
    ({"features.n_fft": 100}, "n_fft=100 is shorter than the longest window"),
    ({"augment.time_mask": 1.5}, "config.augment.time_mask is 1.5; expected a share"),
    ({"model.name": "resnet51"}, "unknown model 'resnet51'; the known ones are"),
    ({"model.dtype": "int8"}, "config.model.dtype is 'int8'; choose one of"),
    ({"model.dropout": 1.0}, "config.model.dropout is 1.0; expected a share"),
    ({"model.drop_path": 1.0}, "config.model.drop_path is 1.0; expected a share"),
    ({"model.drop_path": 0.1}, "drop_path is 0.1, but tiny has no residual branches"),
    (
        {"data.test_shifts": -1},
        "config.data.test_shifts is -1; expected 0 for none or",
    ),
    (
        {"data.test_shifts": 33},
        "test_shifts is 33; expected 0 for none or 1 to 32, the",
    ),
    ({"model.freeze": "conv9"}, "the network has no stage 'conv9'"),
    ({"model.freeze": "head"}, "leaves nothing to train"),
    ({"model.reinitialize": "conv9"}, "the network has no stage 'conv9'"),
    ({"model.pretrained": "imagenet"}, "unknown weights 'tiny'; the known ones are"),
    ({"model.pretrained": "a/b.safetensors"}, "is 'a/b.safetensors', and there is no"),
    ({"data.name": "esc5"}, "config.data.name is 'esc5'; choose one of esc50, esc10"),
    ({"sweep.validation": "half"}, "config.sweep.validation is 'half'; give None, f"),
    ({"sweep.validation": "1.5"}, "config.sweep.validation is '1.5'; give None, fol"),
    ({"sweep.validation": "nan"}, "config.sweep.validation is 'nan'; give None, fol"),
]


@pytest.mark.parametrize(
    ("fields", "sentence"), BAD, ids=[",".join(fields) for fields, _ in BAD]
)
def test_what_the_config_tells_is_refused_before_data_are_touched(
    fields, sentence, config, tmp_path, monkeypatch
):
    monkeypatch.setattr(sweep, "load", never_loaded)
    with pytest.raises(InputError) as caught:
        sweep.train(configs.at(config, fields), tmp_path / "work")
    assert sentence in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_processes_can_t_share_is_refused_before_data_are_touched(
    config, tmp_path, monkeypatch
):
    """Eight devices of two processes."""
    monkeypatch.setattr(sweep, "load", never_loaded)
    monkeypatch.setattr(hosts, "everyone", lambda: hosts.Hosts(0, 2))
    fields = {"batch_size": 36, "parallel": "data_parallel"}
    with pytest.raises(InputError, match="batch_size is 36, which 8 devices of 2 proc"):
        sweep.train(configs.at(config, fields), tmp_path / "work")
    assert list(tmp_path.iterdir()) == []
    fields |= {"batch_size": 40, "accumulate": 2}
    with pytest.raises(InputError, match="accumulate=2 parts; give a multiple of 16"):
        sweep.train(configs.at(config, fields), tmp_path / "work")


def test_runs_that_only_go_on_need_no_weights(config, workdir, tmp_path):
    """Nor do recordings that are given need a known name."""
    fields = {"model.pretrained": "a/b.safetensors", "data.name": "mine"}
    lost = configs.at(config, fields)
    recordings = synthetic.create(num_folds=2, clips_per_class=1)
    for run in sweep.planned_runs(lost):
        (tmp_path / run.name / "checkpoints" / "7").mkdir(parents=True)
        results.write_described(lost, recordings, tmp_path / run.name)
    sweep.check(lost, tmp_path, named=False)
    with pytest.raises(InputError, match="there is no such file"):
        sweep.check(lost, tmp_path / "new", named=False)


@pytest.mark.parametrize("bucket", [False, True])
@pytest.mark.parametrize("below", ["file", "file/made/deep", f"new/{'x' * 300}"])
def test_a_workdir_that_can_t_be_written_is_refused_before_data_are_touched(
    below, bucket, config, tmp_path, monkeypatch
):
    monkeypatch.setattr(sweep, "load", never_loaded)
    if bucket:
        monkeypatch.setattr(locks, "possible", lambda folder: False)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"can't be written .*; give another --workd"):
        sweep.train(config, tmp_path / below)
    assert (tmp_path / "file").read_text() == "in the way"
    if not bucket:  # which has no folders that could be left
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_folder_is_left_where_the_data_are_refused(config, tmp_path):
    fields = {"data.name": "esc50", "data.source_dir": str(tmp_path)}
    with pytest.raises(InputError, match=r"meta/esc50\.csv"):
        sweep.train(configs.at(config, fields), tmp_path / "new" / "work")
    assert list(tmp_path.iterdir()) == []


def test_evaluating_nothing_is_said(config, tmp_path):
    with pytest.raises(InputError, match="train first"):
        sweep.evaluate(config, tmp_path)


def test_a_class_in_one_fold_trains_where_another_is_tested(tmp_path, caplog):
    """And is refused where its own fold is tested, before another fold trains."""
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
    config.sweep.folds = (1, 2)
    with pytest.raises(InputError, match="'emu' would be tested and never trained"):
        sweep.train(config, tmp_path / "two", recordings=recordings)
    assert not list((tmp_path / "two").glob("fold*"))
