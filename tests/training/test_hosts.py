import contextlib
import json
import signal
import time

import jax
import numpy as np
import pytest
from etils import epath

from audiojax.errors import InputError
from audiojax.training import hosts, sweep, trainer
from audiojax.training.checkpoints import Checkpoints
from audiojax.training.hosts import Hosts
from tests import processes, tiny


def test_one_process_keeps_what_it_has():
    alone, values = Hosts(), np.arange(5)
    assert alone.first
    assert alone.broadcast(lambda: {"a": 1}) == {"a": 1}
    assert alone.copy(values) is values
    np.testing.assert_array_equal(alone.share(values), values)
    np.testing.assert_array_equal(alone.gather(values, 5), values)
    assert alone.largest(15) == 15
    assert hosts.everyone() == alone


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("size", [3, 7, 8, 9])
def test_parts_of_any_size_come_together_again(monkeypatch, count, size):
    """Every process sends as much; a second pass answers with what all have sent."""
    sent = []
    monkeypatch.setattr(hosts.multihost_utils, "process_allgather", sent.append)
    values = np.random.default_rng(0).normal(size=(size, 2)).astype(np.float32)
    job = [Hosts(index, count) for index in range(count)]
    parts = [process.share(values) for process in job]
    np.testing.assert_array_equal(np.concatenate(parts), values)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for process, part in zip(job, parts, strict=True):
        with contextlib.suppress(TypeError):  # no answer yet
            process.gather(part, size)
    assert len({x.shape for x in sent}) == 1
    everything = np.stack(sent)
    monkeypatch.setattr(
        hosts.multihost_utils, "process_allgather", lambda _: everything
    )
    for process, part in zip(job, parts, strict=True):
        found = process.gather(part, size)
        np.testing.assert_array_equal(found, values)
        assert found.dtype == np.float32


@pytest.mark.parametrize("decided", [None, [0, 2], {"name": "naïve", "x": 0.1}, ""])
def test_what_the_first_decides_all_are_told(monkeypatch, decided):
    spoken = []
    utils = hosts.multihost_utils
    monkeypatch.setattr(
        utils, "broadcast_one_to_all", lambda x: [spoken.append(x), x][1]
    )
    assert Hosts(0, 2).broadcast(lambda: decided) == decided
    heard = iter(spoken)

    def hear(placeholder):
        told = next(heard)
        assert np.shape(placeholder) == np.shape(told)
        return told

    monkeypatch.setattr(utils, "broadcast_one_to_all", hear)
    assert Hosts(1, 2).broadcast(pytest.fail) == decided


def test_a_job_without_its_other_processes_is_said():
    with pytest.raises(InputError, match=r"could not be joined .*--coordinator"):
        hosts.connect(None, 2, 0)


# What follows runs processes of four virtual devices each, joined over loopback.


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """SGD, as Adam's first steps magnify the rounding of small gradients."""
    config = tiny.get_config()
    config.data.data_dir = str(tmp_path_factory.mktemp("data"))
    config.sweep.folds = (1,)
    config.sweep.validation = "fold"
    config.epochs = 4
    config.optimizer.update(name="sgd", learning_rate=0.5)
    config.parallel = "data_parallel"
    return config


def arguments(config, workdir):
    """The same config for the command."""
    return [
        "--config=tests/tiny.py",
        f"--workdir={workdir}",
        f"--config.data.data_dir={config.data.data_dir}",
        "--config.sweep.folds=1,",
        f"--config.sweep.validation={config.sweep.validation}",
        f"--config.epochs={config.epochs}",
        f"--config.optimizer.name={config.optimizer.name}",
        f"--config.optimizer.learning_rate={config.optimizer.learning_rate}",
        f"--config.parallel={config.parallel}",
    ]


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """One process of eight devices: this one."""
    assert jax.local_device_count() == 8
    workdir = tmp_path_factory.mktemp("alone")
    sweep.train(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def together(config, alone, tmp_path_factory):
    """Two processes of four; the images are there already."""
    workdir = tmp_path_factory.mktemp("together") / "work"
    ends = processes.run_job(*arguments(config, workdir))
    assert [status for status, *_ in ends] == [0, 0], ends
    return workdir, ends


def restored(config, workdir):
    """State and progress of the last checkpoint."""
    built = trainer.Trainer(config, trainer.open_data(config, sweep.load(config)))
    folder = epath.Path(workdir) / "fold1-seed0" / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        state, progress = checkpoints.restore(built.abstract_state())
    return jax.device_get(state), progress


def predicted(workdir, name="predictions"):
    return dict(np.load(workdir / "fold1-seed0" / f"{name}.npz"))


def metrics(workdir):
    text = (workdir / "fold1-seed0" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def assert_close(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-4)


def test_two_processes_of_four_devices_train_as_one_of_eight(config, alone, together):
    workdir, _ = together
    found, expected = predicted(workdir), predicted(alone)
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found["filename"], expected["filename"])
    np.testing.assert_array_equal(found["label"], expected["label"])
    (state, progress), (one_state, one_progress) = (
        restored(config, path) for path in (workdir, alone)
    )
    assert_close(state.params, one_state.params)
    assert_close(state.batch_stats, one_state.batch_stats)
    assert_close(state.opt_state, one_state.opt_state)
    assert_close(state.best, one_state.best)
    assert int(state.step) == int(one_state.step) == 16
    assert progress["best"]["epoch"] == one_progress["best"]["epoch"]
    lines = metrics(workdir)
    assert [line["step"] for line in lines] == [4, 8, 12, 16]
    for line, other in zip(lines, metrics(alone), strict=True):
        assert line == pytest.approx(other, rel=0, abs=1e-4)
    # It learned: two runs that stand still would agree too.
    assert lines[-1]["train_loss"] < lines[0]["train_loss"] - 0.1


def test_the_first_process_alone_writes_and_speaks(alone, together):
    workdir, ends = together

    def written(folder):
        paths = {path.relative_to(folder) for path in folder.rglob("*")}
        return {path for path in paths if "checkpoints" not in path.parts}

    # What the command draws of the results, and `alone` was not made by it.
    drawn = [*workdir.glob("*.png"), workdir / "report.html"]
    expected = written(alone) | {path.relative_to(workdir) for path in drawn}
    assert written(workdir) == expected
    (_, out, err), (_, other_out, other_err) = ends
    assert "epoch 4/4" in err
    assert "results.json" in out
    assert "epoch" not in other_err
    assert "results.json" not in other_out
    results = json.loads((workdir / "results.json").read_text())
    assert [run["name"] for run in results["runs"]] == ["fold1-seed0"]


@pytest.mark.slow
def test_a_signal_to_one_stops_both_and_typed_again_the_bits_are_the_same(
    config, together, tmp_path
):
    whole, _ = together
    command = arguments(config, tmp_path / "work")
    folder = tmp_path / "work" / "fold1-seed0"
    with contextlib.ExitStack() as stack:
        first, second = processes.start_job(stack, *command)
        saved = folder / "checkpoints"
        assert processes.wait_until(lambda: list(saved.glob("*/manifest.json")), first)
        second.send_signal(signal.SIGTERM)
        ends = processes.end_job([first, second])
    for status, _, err in ends:
        assert status == 143, err
        assert "stopped by SIGTERM" in err
        assert "type the same command again to go on" in err
        assert "Traceback" not in err
    assert not (folder / "predictions.npz").exists()
    ends = processes.run_job(*command)
    assert [status for status, *_ in ends] == [0, 0], ends
    assert "goes on at step" in ends[0][2]
    for name in ("predictions.npz", "validation.npz"):
        there = whole / "fold1-seed0" / name
        assert (folder / name).read_bytes() == there.read_bytes()
    assert metrics(tmp_path / "work") == metrics(whole)
    for x, y in zip(
        *(jax.tree.leaves(restored(config, x)[0]) for x in (tmp_path / "work", whole)),
        strict=True,
    ):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_one_that_fails_alone_ends_the_job(config, tmp_path):
    """The first may write only small files, and the other waits for its next step."""
    begun = time.monotonic()
    (first, _, err), (second, _, _) = processes.run_job(
        *arguments(config, tmp_path),
        before_first=processes.BEFORE_THE_FIRST_SAVE + processes.FULL_DISK,
    )
    assert first == 1, err
    assert "audiojax: checkpoint" in err
    assert "(File too large)" in err
    assert "Traceback" not in err
    assert second != 0
    assert time.monotonic() - begun < 300
