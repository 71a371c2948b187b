import dataclasses
import json
import signal
from typing import Any

import jax
import numpy as np
import pytest
from etils import epath
from sklearn import metrics

from audiojax import datasets, files
from audiojax.errors import InputError, Interrupted
from audiojax.training import program, sweep, trainer
from audiojax.training.checkpoints import Checkpoints
from audiojax.training.loop import Diverged
from audiojax.workdir import Entry, Run, Workdir
from tests import tiny


def recordings_for(config):
    return datasets.load(
        config.data.name,
        datasets.Settings(
            data_dir=config.data.data_dir,
            sample_rate=config.features.sample_rate,
            seed=config.data.seed,
        ),
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Where the images are kept, made once for all tests here."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def config(data_dir):
    config = tiny.get_config()
    config.data.data_dir = str(data_dir)
    return config


@pytest.fixture
def make_trainer(config):
    """Trainers for the config as it is at the call."""

    def make(parallel="data_parallel"):
        data = trainer.open_data(config, recordings_for(config))
        return trainer.Trainer(config, data, parallel)

    return make


def train_one(built, workdir, seed=0) -> Any:
    """Trains fold 1 and gives its entry."""
    (end,) = built.train([Run(fold=1, seed=seed)], epath.Path(workdir))
    return end


def train_seeds(built, workdir, seeds):
    """Trains fold 1 with several seeds side by side."""
    return built.train([Run(1, seed) for seed in seeds], epath.Path(workdir))


def read_lines(run_dir):
    return [json.loads(x) for x in (run_dir / "metrics.jsonl").read_text().splitlines()]


def before_step(built, change, num_runs=1):
    """Lets `change` see the state and replace the batch of every step."""
    steps_per_epoch = built.feed.steps_per_epoch(1)
    compiled = built.programs.get(num_runs, steps_per_epoch)

    def train_step(state, batch, key):
        return compiled.train_step(state, change(state, batch) or batch, key)

    changed = dataclasses.replace(compiled, train_step=train_step)
    built.programs.kept[num_runs, steps_per_epoch] = changed


def raise_signal_at(built, step, signum):
    """Sends the process a signal while the trainer computes that step."""

    def change(state, _batch):
        if int(state.step) == step:
            signal.raise_signal(signum)

    before_step(built, change)


def saved_state(built, run_dir):
    with Checkpoints(run_dir / "checkpoints") as checkpoints:
        return jax.device_get(checkpoints.restore(built.abstract_state())[0])


def assert_equal_trees(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_twice_the_same_is_the_same_to_the_bit(make_trainer, tmp_path):
    for name in ("a", "b"):
        train_one(make_trainer(), tmp_path / name)
    first, second = (
        tmp_path / name / "fold1-seed0" / "predictions.npz" for name in ("a", "b")
    )
    assert first.read_bytes() == second.read_bytes()


def test_another_seed_is_another_run(make_trainer, tmp_path):
    for seed in (0, 1):
        train_one(make_trainer(), tmp_path, seed)
    a, b = (logits(tmp_path, seed) for seed in (0, 1))
    assert np.abs(a - b).max() > 1e-3


def logits(workdir, seed=0):
    return np.load(workdir / f"fold1-seed{seed}" / "predictions.npz")["logits"]


@pytest.mark.parametrize(("step", "signum"), [(5, signal.SIGINT), (7, signal.SIGTERM)])
def test_stopped_and_started_again_it_is_the_same_to_the_bit(
    config, make_trainer, tmp_path, step, signum
):
    """After the last step of an epoch of five, and in the middle of the next.

    The parameters are averaged, which belongs to the state.
    """
    config.optimizer.ema_decay = 0.9
    train_one(make_trainer(), tmp_path / "whole")
    stopped = make_trainer()
    raise_signal_at(stopped, step - 1, signum)
    with pytest.raises(Interrupted) as caught:
        train_one(stopped, tmp_path / "parts")
    assert caught.value.signum == signum
    whole, parts = (tmp_path / name / "fold1-seed0" for name in ("whole", "parts"))
    assert not (parts / "predictions.npz").exists()
    entry = train_one(make_trainer(), tmp_path / "parts")
    assert entry.steps == 10
    assert_equal_trees(
        saved_state(make_trainer(), parts), saved_state(make_trainer(), whole)
    )
    bits = [(x / "predictions.npz").read_bytes() for x in (whole, parts)]
    assert bits[0] == bits[1]
    assert read_lines(parts) == read_lines(whole)


@pytest.fixture
def everything(config):
    """All that can be done to sounds, each clip clean and changed in every epoch.

    But for the vocoder: where a CPU stands in for several devices, XLA's Fourier
    transforms round differently from time to time.
    """
    config.batch_size, config.data.stage = 240, "audio"
    config.augment.clean_copy = True
    config.augment.noise = (10, 30)
    for name in ("offset", "roll", "shift", "time_mask", "mel_mask"):
        config.augment[name] = 0.2
    for name in ("gain", "waveform_mixup", "mixup", "cutmix"):
        config.augment[name] = 1.0
    return config


@pytest.mark.slow
def test_changed_sounds_resume_to_the_same_bits_by_one_program(
    everything, make_trainer, tmp_path, monkeypatch
):
    """In the middle of an epoch of three steps, whose last batch is not full."""
    traced = []

    def counted(*args, **kwargs):
        step = make(*args, **kwargs)

        def train_step(state, batch, key):
            traced.append({name: x.dtype for name, x in batch.items()})
            return step(state, batch, key)

        return train_step

    make = program.steps.make_train_step
    monkeypatch.setattr(program.steps, "make_train_step", counted)
    built = make_trainer()
    assert built.feed.epoch_size(1) % everything.batch_size
    assert train_one(built, tmp_path / "whole").steps == 6
    assert len(traced) == 1
    stopped = make_trainer()
    raise_signal_at(stopped, 3, signal.SIGINT)
    with pytest.raises(Interrupted):
        train_one(stopped, tmp_path / "parts")
    train_one(make_trainer(), tmp_path / "parts")
    whole, parts = (tmp_path / name / "fold1-seed0" for name in ("whole", "parts"))
    bits = [(x / "predictions.npz").read_bytes() for x in (whole, parts)]
    assert bits[0] == bits[1]
    assert read_lines(parts) == read_lines(whole)


def test_metrics_have_one_line_an_epoch(make_trainer, tmp_path):
    train_one(make_trainer(), tmp_path)
    lines = read_lines(tmp_path / "fold1-seed0")
    assert [line["step"] for line in lines] == [5, 10]
    assert {"train_loss", "train_accuracy", "test_accuracy", "learning_rate"} <= set(
        lines[0]
    )
    assert lines[1]["train_loss"] < lines[0]["train_loss"]


def test_seeds_side_by_side_are_what_each_gives_alone(config, make_trainer, tmp_path):
    config.model.dropout, config.sweep.validation = 0.5, "fold"
    together, alone = make_trainer("seed_parallel"), make_trainer()
    ends = train_seeds(together, tmp_path / "together", range(4))
    entries = [end for end in ends if isinstance(end, Entry)]
    assert [entry.run.seed for entry in entries] == [0, 1, 2, 3]
    for seed in (0, 3):
        entry = train_one(alone, tmp_path / "alone", seed)
        assert isinstance(entry, Entry)
        found, expected = (
            saved_state(alone, tmp_path / name / f"fold1-seed{seed}")
            for name in ("together", "alone")
        )
        for x, y in zip(
            jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True
        ):
            np.testing.assert_allclose(x, y, rtol=0, atol=2e-5 * np.abs(y).max())
        assert entries[seed].final["accuracy"] == entry.final["accuracy"]
        best, alone_best = entries[seed].best, entry.best
        assert best is not None
        assert alone_best is not None
        assert best["epoch"] == alone_best["epoch"]


@pytest.mark.slow
def test_seeds_side_by_side_stop_and_go_on_as_one_or_many(make_trainer, tmp_path):
    """Stopped together, one is trained on alone and the others catch up with it."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_seeds(make_trainer("seed_parallel"), whole, range(3))
    stopped = make_trainer("seed_parallel")

    def change(state, _batch):
        if int(state.step[0]) == 6:
            signal.raise_signal(signal.SIGTERM)

    before_step(stopped, change, num_runs=3)
    with pytest.raises(Interrupted):
        train_seeds(stopped, parts, range(3))
    alone = make_trainer("seed_parallel")

    def stop_again(state, _batch):
        if int(state.step[0]) == 8:
            signal.raise_signal(signal.SIGINT)

    before_step(alone, stop_again, num_runs=1)
    with pytest.raises(Interrupted):
        train_seeds(alone, parts, [1])
    train_seeds(make_trainer("seed_parallel"), parts, range(3))
    for seed in range(3):
        np.testing.assert_allclose(logits(parts, seed), logits(whole, seed), atol=1e-4)


def test_the_best_epoch_is_picked_by_validation_and_scored_on_the_test(
    config, make_trainer, tmp_path
):
    """`best` is what a training of just so many epochs ends with, at equal rates."""
    config.sweep.validation, config.epochs = "fold", 4
    config.optimizer.update(schedule="constant", warmup_epochs=0.0, learning_rate=3e-2)
    entry = train_one(make_trainer(), tmp_path / "long")
    lines = read_lines(tmp_path / "long" / "fold1-seed0")
    ranked = [(x["validation_accuracy"], -x["validation_loss"]) for x in lines]
    best = max(range(4), key=lambda i: ranked[i])
    assert entry.best["epoch"] == best + 1
    assert entry.best["validation"]["accuracy"] == ranked[best][0]
    assert entry.best["accuracy"] == lines[best]["test_accuracy"]
    assert entry.best["loss"] == pytest.approx(lines[best]["test_loss"], rel=1e-5)
    config.epochs = best + 1
    short = train_one(make_trainer(), tmp_path / "short")
    assert entry.best["accuracy"] == short.final["accuracy"]
    again, _ = make_trainer().evaluate(entry, epath.Path(tmp_path / "long"))
    assert again == entry
    held = np.load(tmp_path / "long" / "fold1-seed0" / "validation.npz")
    assert len(held["filename"]) == entry.best["validation"]["num_clips"] == 80


def test_averaged_parameters_are_the_model_and_the_raw_are_beside(config, tmp_path):
    config.optimizer.ema_decay, config.sweep.validation = 0.7, "fold"
    config.sweep.folds = (1,)
    written = sweep.train(config, tmp_path)
    (run,), (fold,) = written["runs"], written["folds"]
    line = read_lines(tmp_path / "fold1-seed0")[-1]
    assert line["raw_test_accuracy"] == run["raw"]["accuracy"] == fold["raw"]
    assert line["test_accuracy"] == run["final"]["accuracy"] == fold["single"]
    assert sweep.evaluate(config, tmp_path) == files.read_sealed(
        tmp_path / "results.json", ""
    )
    opened = Workdir(tmp_path)
    built = trainer.Trainer(config, trainer.open_data(config, recordings_for(config)))
    test, saved = built.feed.split(1).test, saved_state(built, tmp_path / "fold1-seed0")
    found = {}
    for which in ("last", "raw", "best"):
        variables = opened.variables(Run(1, 0), which)
        found[which] = built.evaluator.predictions(variables, test).logits
    np.testing.assert_array_equal(found["last"], logits(tmp_path))
    assert np.abs(found["raw"] - found["last"]).max() > 1e-3
    for which, expected in (("last", saved.ema), ("raw", saved.variables)):
        variables = opened.variables(Run(1, 0), which)
        for name in ("params", "batch_stats"):
            assert_equal_trees(variables[name], expected[name])
    of_best = np.mean(found["best"].argmax(1) == predicted_labels(tmp_path))
    assert of_best == run["best"]["accuracy"]


def predicted_labels(workdir):
    return np.load(workdir / "fold1-seed0" / "predictions.npz")["label"]


def test_both_stages_give_the_same_images_and_scores(config, tmp_path):
    found = {}
    for stage in ("audio", "spectrogram"):
        config.data.stage = stage
        data = trainer.open_data(config, recordings_for(config))
        built = trainer.Trainer(config, data)
        batch = next(built.feed.evaluation(built.feed.split(1).train))
        image = np.asarray(jax.jit(built.classifier.batch_image)(batch))
        found[stage] = image, train_one(built, tmp_path / stage).final
    (audio, from_audio), (spectrogram, from_spectrogram) = found.values()
    np.testing.assert_allclose(audio, spectrogram, rtol=1e-5, atol=1e-5)
    assert from_audio["accuracy"] == from_spectrogram["accuracy"]


def test_standardization_uses_the_training_clips_alone(config, make_trainer):
    built = make_trainer()
    image = jax.jit(built.classifier.image)
    audio = [
        built.data.recordings.audio(i)[: built.classifier.clip_policy.num_samples]
        for i in built.feed.split(1).train
    ]
    images = np.asarray(image(np.stack(audio)), np.float64)
    state = built.initial_state(Run(1, 0))
    np.testing.assert_allclose(state.input["mean"], images.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(state.input["std"], images.std((0, 1, 2)), rtol=1e-4)
    config.model.standardize = False
    state = make_trainer().initial_state(Run(1, 0))
    np.testing.assert_array_equal(state.input["mean"], np.zeros(3))
    np.testing.assert_array_equal(state.input["std"], np.ones(3))


def test_a_training_that_diverges_stops_and_keeps_the_last_good_state(
    config, make_trainer, tmp_path
):
    config.max_skipped_in_a_row = 3
    built = make_trainer()

    def poison(state, batch):
        if int(state.step) >= 4:
            return {**batch, "image": batch["image"] * np.nan}
        return None

    before_step(built, poison)
    end = train_one(built, tmp_path)
    assert isinstance(end, Diverged)
    assert "fold1-seed0 diverged" in end.message
    state = saved_state(make_trainer(), tmp_path / "fold1-seed0")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert int(state.skipped_in_a_row) >= 3


def test_a_seed_that_diverges_leaves_the_others_alone(config, make_trainer, tmp_path):
    config.max_skipped_in_a_row = 3
    train_one(make_trainer("seed_parallel"), tmp_path / "alone", 1)
    built = make_trainer("seed_parallel")

    def poison(state, batch):
        if int(state.step[0]) >= 4:
            image = batch["image"].copy()
            image[0] = np.nan
            return {**batch, "image": image}
        return None

    before_step(built, poison, num_runs=2)
    lost, kept = train_seeds(built, tmp_path / "both", [0, 1])
    assert isinstance(lost, Diverged)
    assert isinstance(kept, Entry)
    assert kept.skipped_steps == 0
    np.testing.assert_allclose(
        logits(tmp_path / "both", 1), logits(tmp_path / "alone", 1), atol=1e-4
    )


def test_abstract_state_is_the_state_without_computing(make_trainer):
    built = make_trainer()

    def shapes(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tree)

    assert shapes(built.abstract_state()) == shapes(built.initial_state(Run(1, 0)))


def test_unknown_stage_is_named(config):
    config.data.stage = "waveform"
    with pytest.raises(InputError, match=r"spectrogram .* or audio"):
        trainer.open_data(config, recordings_for(config))


def test_devices_share_a_batch_equally(caplog):
    assert len(program.batch_devices(32, jax.devices())) == 8
    assert len(program.batch_devices(6, jax.devices())) == 6
    assert "6 of the 8 devices" in caplog.text


@pytest.mark.parametrize(
    ("parallel", "batch_size", "num_runs", "chosen"),
    [
        ("auto", 32, 5, "seed_parallel"),
        ("auto", 32, 1, "data_parallel"),
        ("auto", 256, 5, "data_parallel"),
        ("data_parallel", 32, 5, "data_parallel"),
        ("seed_parallel", 256, 1, "seed_parallel"),
    ],
)
def test_runs_go_side_by_side_where_batches_are_small_for_eight_devices(
    config, parallel, batch_size, num_runs, chosen
):
    config.parallel, config.batch_size = parallel, batch_size
    assert trainer.choose_parallel(config, num_runs) == chosen


def test_one_device_has_one_way_however_many_runs_are_left(config, monkeypatch):
    monkeypatch.setattr(trainer.jax, "device_count", lambda: 1)
    assert {trainer.choose_parallel(config, n) for n in (1, 5)} == {"data_parallel"}


def test_several_processes_share_each_run(config, monkeypatch):
    monkeypatch.setattr(trainer.jax, "process_count", lambda: 2)
    assert trainer.choose_parallel(config, 5) == "data_parallel"
    config.parallel = "seed_parallel"
    with pytest.raises(InputError, match="job of 2 processes; take data_parallel, or"):
        trainer.choose_parallel(config, 5)


def test_an_unknown_way_to_use_devices_is_named(config):
    config.parallel = "model_parallel"
    with pytest.raises(InputError, match="auto, data_parallel, seed_parallel"):
        trainer.choose_parallel(config, 1)


def only(count):
    """In the place of `batch_devices`: the first devices."""
    return lambda _size, devices: devices[:count]


def test_one_device_and_eight_train_alike(config, tmp_path, monkeypatch):
    """The same global batch gives the same model, whatever it is spread over."""
    config.optimizer.name, config.optimizer.learning_rate = "sgd", 1e-3
    for count in (1, 8):
        monkeypatch.setattr(program, "batch_devices", only(count))
        data = trainer.open_data(config, recordings_for(config))
        train_one(trainer.Trainer(config, data), tmp_path / str(count))
    np.testing.assert_allclose(
        logits(tmp_path / "1"), logits(tmp_path / "8"), atol=1e-3
    )


def test_resume_on_another_number_of_devices(make_trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "batch_devices", only(8))
    stopped = make_trainer()
    raise_signal_at(stopped, 3, signal.SIGTERM)
    with pytest.raises(Interrupted):
        train_one(stopped, tmp_path)
    monkeypatch.setattr(program, "batch_devices", only(2))
    assert train_one(make_trainer(), tmp_path).steps == 10


def noise_of(num_clips, labels):
    """Clips whose classes are told by how loud they are."""
    random = np.random.default_rng(0)
    loud = [0.01 + 0.3 * sum(2.0**-i for i in of_clip) for of_clip in labels]
    audio = [loud[i] * random.uniform(-1, 1, 800) for i in range(num_clips)]
    return np.array(audio, np.float32)


def small(config):
    config.data.stage, config.data.clip_seconds = "audio", 0.1
    config.features.sample_rate, config.features.n_fft = 8000, 800
    config.batch_size, config.epochs = 16, 3
    config.sweep.folds = (1,)


def test_several_classes_a_clip_are_trained_and_scored(config, tmp_path):
    small(config)
    config.sweep.validation = "fold"
    labels = [[(), (0,), (1,), (0, 1)][i % 4] for i in range(60)]
    hot = np.array([[k in of_clip for k in range(2)] for of_clip in labels], np.float32)
    recordings = datasets.from_arrays(
        noise_of(60, labels), hot, 8000, fold=[i // 4 % 3 + 1 for i in range(60)]
    )
    found = sweep.train(config, tmp_path, recordings=recordings)
    arrays = np.load(tmp_path / "fold1-seed0" / "predictions.npz")
    assert arrays["label"].shape == arrays["logits"].shape == (20, 2)
    expected = metrics.average_precision_score(arrays["label"], arrays["logits"])
    assert found["metric"] == "mAP"
    assert found["summary"]["single"]["mean"] == pytest.approx(expected)
    assert found["runs"][0]["best"]["mAP"] <= 1
    assert {"validation_mAP", "test_mAP"} <= set(
        read_lines(tmp_path / "fold1-seed0")[0]
    )
    again = sweep.evaluate(config, tmp_path, recordings=recordings)
    assert again == files.read_sealed(tmp_path / "results.json", "")


@pytest.mark.parametrize("balance", ["class_weights", "sampling"])
def test_rare_classes_count_as_much_as_others(config, tmp_path, balance):
    small(config)
    config.data.balance = balance
    labels = [0] * 50 + [1] * 10
    recordings = datasets.from_arrays(
        noise_of(60, [(i,) for i in labels]),
        labels,
        8000,
        fold=[i % 2 + 1 for i in range(60)],
    )
    built = trainer.Trainer(config, trainer.open_data(config, recordings))
    seen = np.zeros(2)
    for epoch in range(40):
        for batch in built.feed.train(1, 0, epoch, 0):
            weight = batch["mask"] * batch.get("weight", 1.0)
            seen += np.bincount(batch["label"], weights=weight, minlength=2)
    # Five standard deviations of the share of 1200 draws.
    assert seen[1] / seen.sum() == pytest.approx(0.5, abs=5 * 0.0145)
