import dataclasses
import json
import signal

import jax
import numpy as np
import pytest
from etils import epath

from audiojax import datasets, train
from audiojax.errors import InputError
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
    """Trainers of fold 1 for the config as it is at the call."""

    def make(seed=0):
        data = train.open_data(config, recordings_for(config))
        return train.Trainer(config, data, train.Run(fold=1, seed=seed))

    return make


def read_lines(run_dir):
    return [json.loads(x) for x in (run_dir / "metrics.jsonl").read_text().splitlines()]


def raise_signal_at(trainer, step, signum):
    """Sends the process a signal while the trainer computes that step."""
    inner = trainer._train_step

    def train_step(state, batch, key):
        if int(state.step) == step:
            signal.raise_signal(signum)
        return inner(state, batch, key)

    trainer._train_step = train_step


def saved_state(trainer, run_dir):
    with train.Checkpoints(run_dir / "checkpoints") as checkpoints:
        return jax.device_get(checkpoints.restore(trainer.abstract_state())[0])


def assert_equal_trees(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_twice_the_same_is_the_same_to_the_bit(make_trainer, tmp_path):
    for name in ("a", "b"):
        make_trainer().train(epath.Path(tmp_path / name))
    first, second = (tmp_path / name / "predictions.npz" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_another_seed_is_another_run(make_trainer, tmp_path):
    for seed in (0, 1):
        make_trainer(seed).train(epath.Path(tmp_path / str(seed)))
    a, b = (np.load(tmp_path / s / "predictions.npz")["logits"] for s in ("0", "1"))
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize(("step", "signum"), [(5, signal.SIGINT), (7, signal.SIGTERM)])
def test_stopped_and_started_again_it_is_the_same_to_the_bit(
    make_trainer, tmp_path, step, signum
):
    """After the last step of an epoch of five, and in the middle of the next."""
    whole, parts = epath.Path(tmp_path / "whole"), epath.Path(tmp_path / "parts")
    make_trainer().train(whole)
    stopped = make_trainer()
    raise_signal_at(stopped, step - 1, signum)
    with pytest.raises(train.Interrupted) as caught:
        stopped.train(parts)
    assert caught.value.signum == signum
    assert not (parts / "predictions.npz").exists()
    entry = make_trainer().train(parts)
    assert entry["steps"] == 10
    assert_equal_trees(
        saved_state(make_trainer(), parts), saved_state(make_trainer(), whole)
    )
    bits = [(x / "predictions.npz").read_bytes() for x in (whole, parts)]
    assert bits[0] == bits[1]
    assert read_lines(parts) == read_lines(whole)


def test_metrics_have_one_line_an_epoch(make_trainer, tmp_path):
    make_trainer().train(epath.Path(tmp_path))
    lines = read_lines(tmp_path)
    assert [line["step"] for line in lines] == [5, 10]
    assert {"train_loss", "train_accuracy", "test_accuracy", "learning_rate"} <= set(
        lines[0]
    )
    assert lines[1]["train_loss"] < lines[0]["train_loss"]


def test_both_stages_give_the_same_images_and_scores(config, tmp_path):
    found = {}
    for stage in ("audio", "spectrogram"):
        config.data.stage = stage
        data = train.open_data(config, recordings_for(config))
        trainer = train.Trainer(config, data, train.Run(fold=1, seed=0))
        batch = next(trainer.eval_batches(trainer.train_indices))
        image = np.asarray(jax.jit(trainer.classifier.batch_image)(batch))
        found[stage] = image, trainer.train(epath.Path(tmp_path / stage))["final"]
    (audio, from_audio), (spectrogram, from_spectrogram) = found.values()
    np.testing.assert_allclose(audio, spectrogram, rtol=1e-5, atol=1e-5)
    assert from_audio["accuracy"] == from_spectrogram["accuracy"]


def test_standardisation_uses_the_training_clips_alone(config, make_trainer):
    trainer = make_trainer()
    image = jax.jit(trainer.classifier.image)
    audio = [
        trainer.data.recordings.audio(i)[: trainer.classifier.clipping.num_samples]
        for i in trainer.train_indices
    ]
    images = np.asarray(image(np.stack(audio)), np.float64)
    state = trainer.initial_state()
    np.testing.assert_allclose(state.input["mean"], images.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(state.input["std"], images.std((0, 1, 2)), rtol=1e-4)
    config.model.standardize = False
    state = make_trainer().initial_state()
    np.testing.assert_array_equal(state.input["mean"], np.zeros(3))
    np.testing.assert_array_equal(state.input["std"], np.ones(3))


def test_a_training_that_diverges_stops_and_keeps_the_last_good_state(
    config, make_trainer, tmp_path
):
    config.max_skipped_in_a_row = 3
    trainer = make_trainer()
    inner = trainer._train_step

    def poisoned(state, batch, key):
        if int(state.step) >= 4:
            batch = {**batch, "image": batch["image"] * np.nan}
        return inner(state, batch, key)

    trainer._train_step = poisoned
    with pytest.raises(InputError, match=r"fold1-seed0 diverged: .* steps in a row"):
        trainer.train(epath.Path(tmp_path))
    state = saved_state(make_trainer(), tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert int(state.skipped_in_a_row) >= 3


def test_abstract_state_is_the_state_without_computing(make_trainer):
    trainer = make_trainer()

    def shapes(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tree)

    assert shapes(trainer.abstract_state()) == shapes(trainer.initial_state())


@pytest.mark.parametrize(
    ("fold", "named"), [(9, "has folds 1, 2, 3, 4, 5"), (0, "names fold 0")]
)
def test_an_unknown_fold_is_named(config, fold, named):
    with pytest.raises(InputError, match=named):
        train.split(recordings_for(config).info, fold)


def test_one_recording_on_both_sides_is_refused(config):
    info = recordings_for(config).info
    shared = dataclasses.replace(info.clips[0], fold=info.clips[-1].fold, labels=(0,))
    leaking = dataclasses.replace(info, clips=(*info.clips, shared))
    with pytest.raises(InputError, match=str(shared.source)):
        train.split(leaking, info.clips[0].fold)


def test_unknown_stage_is_named(config):
    config.data.stage = "waveform"
    with pytest.raises(InputError, match=r"spectrogram .* or audio"):
        train.open_data(config, recordings_for(config))


def test_devices_share_a_batch_equally(caplog):
    assert len(train.batch_devices(32)) == 8
    assert len(train.batch_devices(6)) == 6
    assert "6 of the 8 devices" in caplog.text


def test_one_device_and_eight_train_alike(config, tmp_path, monkeypatch):
    """The same global batch gives the same model, whatever it is spread over.

    What is drawn differs between devices, so nothing is drawn here.
    """
    config.optimizer.name, config.optimizer.learning_rate = "sgd", 1e-3
    config.model.dropout = 0.0
    config.augment.update(shift=0.0, time_mask=0.0, mel_mask=0.0)
    logits = []
    for count in (1, 8):
        monkeypatch.setattr(
            train, "batch_devices", lambda _, count=count: jax.devices()[:count]
        )
        data = train.open_data(config, recordings_for(config))
        trainer = train.Trainer(config, data, train.Run(fold=1, seed=0))
        trainer.train(epath.Path(tmp_path / str(count)))
        logits.append(np.load(tmp_path / str(count) / "predictions.npz")["logits"])
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-3)


def test_resume_on_another_number_of_devices(make_trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "batch_devices", lambda _: jax.devices()[:8])
    stopped = make_trainer()
    raise_signal_at(stopped, 3, signal.SIGTERM)
    with pytest.raises(train.Interrupted):
        stopped.train(epath.Path(tmp_path))
    monkeypatch.setattr(train, "batch_devices", lambda _: jax.devices()[:2])
    assert make_trainer().train(epath.Path(tmp_path))["steps"] == 10
