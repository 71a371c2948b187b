"""Whatever stops a training, what it ends with is the same to the bit."""

import collections
import contextlib
import gc
import json
import random
import re
import resource
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from etils import epath

from audiojax.errors import InputError, Interrupted
from audiojax.training import loop, sweep, trainer
from audiojax.training.checkpoints import Checkpoints
from tests import processes, tiny

RUN = "fold1-seed0"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """One run of ten steps, each saved."""
    config = tiny.get_config()
    config.data.data_dir = str(tmp_path_factory.mktemp("data"))
    config.sweep.folds = (1,)
    return config


def command(config, workdir, *more, folds="1,"):
    """The same config for the command."""
    return [
        "--config=tests/tiny.py",
        f"--workdir={workdir}",
        f"--config.data.data_dir={config.data.data_dir}",
        f"--config.sweep.folds={folds}",
        *more,
    ]


def outcome(config, workdir, run=RUN):
    """All that a training ends with: the state's arrays, and the files' bytes."""
    built = trainer.Trainer(config, trainer.open_data(config, sweep.load(config)))
    with Checkpoints(epath.Path(workdir) / run / "checkpoints") as checkpoints:
        state, progress = checkpoints.restore(built.abstract_state())
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    arrays = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    del progress["seconds"]
    files = [workdir / run / name for name in ("predictions.npz", "metrics.jsonl")]
    return arrays, progress, [path.read_bytes() for path in files]


def assert_same(found, expected):
    assert found[0].keys() == expected[0].keys()
    # Parameters, the optimizer's state and batch statistics are among them.
    for part in (".params", ".opt_state", ".batch_stats", ".input"):
        assert any(name.startswith(part) for name in found[0])
    for name, value in expected[0].items():
        np.testing.assert_array_equal(found[0][name], value, err_msg=name)
    assert found[1:] == expected[1:]


# Killed processes.


def newest(workdir):
    """The newest whole checkpoint of a run that is being written; 0 without one."""
    paths = (workdir / RUN / "checkpoints").glob("*/manifest.json")
    return max((int(path.parent.name) for path in paths), default=0)


def kill_while_training(arguments, workdir, chance):
    """Kills the command at a moment that `chance` picks.

    Most often that is in the steps after its first checkpoint: they are much of its
    time only here, where little is trained. Else it is while it starts.

    Returns:
        Whether it was killed; it may have come to its end before.
    """
    with processes.started(*arguments) as process:
        assert process.stdout is not None
        process.stdout.readline()  # where it works; then it reads, builds, restores
        if chance.random() < 0.8:
            before = newest(workdir)
            processes.wait_until(lambda: newest(workdir) > before, process)
            time.sleep(chance.uniform(0, 0.4))
        else:
            time.sleep(chance.uniform(0, 4))
        process.kill()
        _, err = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0), err
        return process.returncode != 0


@pytest.mark.parametrize(
    ("kills", "epochs"), [(2, 20), pytest.param(50, 120, marks=pytest.mark.slow)]
)
def test_killed_at_random_moments_it_ends_with_the_same_bits(
    config, tmp_path, kills, epochs
):
    longer = config.copy_and_resolve_references()
    longer.epochs = epochs
    more = f"--config.epochs={epochs}", "--config.evaluate_every_epochs=10"
    # Without checkpoints on the way: those must change nothing either.
    whole = command(
        config, tmp_path / "whole", *more, "--config.checkpoint_seconds=1e6"
    )
    status, _, err = processes.run(*whole)
    assert status == 0, err
    seed = random.SystemRandom().randrange(10**6)
    print(f"moments drawn with seed {seed}")
    chance = random.Random(seed)
    again = command(config, tmp_path / "killed", *more)
    killed = 0
    while killed < kills and kill_while_training(again, tmp_path / "killed", chance):
        killed += 1
    assert killed >= 0.8 * kills, "it came to its end before: give more epochs"
    status, _, err = processes.run(*again)
    assert status == 0, err
    assert_same(*(outcome(longer, tmp_path / name) for name in ("killed", "whole")))


BUSY_AFTER_FOUR_STEPS = """
import hashlib, sys
from audiojax.training.loop import Loop
advance = Loop._advance
def advance_or_compute(self, parts):
    if self.step == 4:
        self.runs[0].checkpoints.wait()
        print("busy", file=sys.stderr, flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
    advance(self, parts)
Loop._advance = advance_or_compute
"""


def read_up_to(text, stream):
    """Reads lines of a process up to one that begins with the text: that one."""
    return next((line for line in stream if line.startswith(text)), "")


@pytest.mark.slow
def test_ctrl_c_says_what_it_waits_for_and_a_second_one_ends_at_once(
    config, tmp_path, caplog
):
    """Also where the main thread is long in C, as while XLA compiles."""
    arguments = command(config, tmp_path)
    with processes.started(*arguments, before=BUSY_AFTER_FOUR_STEPS) as process:
        assert read_up_to("busy", process.stderr)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        said = read_up_to("audiojax: ", process.stderr)
        assert "waits for the end of what is being computed" in said
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert time.monotonic() - begun < 5
    assert "ended at once; type the same command again to go on" in err
    caplog.set_level("INFO", "audiojax")
    sweep.train(config, tmp_path)
    assert f"{RUN} goes on at step 4" in caplog.text


# Damaged checkpoints and a full disk: in this process, on its eight devices.


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """What the run ends with that nothing ever stopped."""
    workdir = tmp_path_factory.mktemp("whole")
    sweep.train(config, workdir)
    return outcome(config, workdir)


@contextlib.contextmanager
def before_step(step, act):
    """Calls `act()` just before that step of a run, with what is saved all written."""
    advance = loop.Loop._advance

    def acting(self, parts):
        if self.step == step:
            self.runs[0].checkpoints.wait()
            act()
        advance(self, parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Loop, "_advance", acting)
        yield


@pytest.fixture(scope="module")
def stopped(config, tmp_path_factory):
    """A run that SIGTERM stopped after its seventh step."""
    workdir = tmp_path_factory.mktemp("stopped")
    with (
        before_step(6, lambda: signal.raise_signal(signal.SIGTERM)),
        pytest.raises(Interrupted),
    ):
        sweep.train(config, workdir)
    assert steps_saved(workdir) == [6, 7]
    return workdir


def steps_saved(workdir):
    return sorted(int(path.name) for path in (workdir / RUN / "checkpoints").iterdir())


def largest_array_file(step_dir):
    files = [path for path in step_dir.rglob("d/*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip_a_bit(checkpoints):
    path = largest_array_file(checkpoints / "7")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return checkpoints / "7"


def truncate(checkpoints):
    path = largest_array_file(checkpoints / "7")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return checkpoints / "7"


def delete(checkpoints):
    largest_array_file(checkpoints / "7").unlink()
    return checkpoints / "7"


def empty_step(checkpoints):
    (checkpoints / "8").mkdir()
    return checkpoints / "8"


@pytest.mark.parametrize("damage", [None, flip_a_bit, truncate, delete, empty_step])
def test_a_damaged_checkpoint_costs_a_step_and_no_bit(
    config, whole, stopped, tmp_path, caplog, damage
):
    workdir = tmp_path / "work"
    shutil.copytree(stopped, workdir)
    damaged = damage and damage(workdir / RUN / "checkpoints")
    caplog.set_level("INFO", "audiojax")
    sweep.train(config, workdir)
    good = 7 if damage in (None, empty_step) else 6
    assert f"{RUN} goes on at step {good}" in caplog.text
    said = re.findall(r"checkpoint (\S+) can't be used", caplog.text)
    assert said == ([str(damaged)] if damaged else [])
    if damaged:
        assert (workdir / RUN / "damaged" / damaged.name).is_dir()
    assert_same(outcome(config, workdir), whole)


@contextlib.contextmanager
def files_limited_to(size):
    """No file can grow beyond so many bytes, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    try:
        yield limit
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Orbax leaves what its failed save was doing to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_is_said_and_the_checkpoint_before_is_whole(
    config, whole, stopped, tmp_path
):
    """Small files are still written, the arrays no more."""
    arrays = largest_array_file(stopped / RUN / "checkpoints" / "7").stat().st_size
    with (
        files_limited_to(arrays // 2) as limit,
        before_step(4, limit),
        pytest.raises(InputError) as caught,
    ):
        sweep.train(config, tmp_path)
    gc.collect()
    folder = tmp_path / RUN / "checkpoints"
    assert re.fullmatch(
        rf"checkpoint 5 can't be written to {folder} \(File too large\); make room "
        "there and type the same command again, which goes on from checkpoint 4: that "
        "is whole",
        str(caught.value),
    )
    assert sorted(path.parent.name for path in folder.glob("*/manifest.json")) == [
        "3",
        "4",
    ]
    sweep.train(config, tmp_path)
    assert_same(outcome(config, tmp_path), whole)


GONE = "def harm(folder): folder.exists() and folder.rmdir() or folder.touch()\n"


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (processes.FULL_DISK, r"\(File too large\); make room there"),
        (GONE, r"\(Not a directory\); make that folder writable"),
    ],
)
def test_of_a_first_checkpoint_that_fails_there_is_one_sentence(
    config, whole, tmp_path, harm, problem
):
    """Of Orbax's own tasks and threads, which fail too, nothing is heard."""
    before = processes.BEFORE_THE_FIRST_SAVE + harm
    status, _, err = processes.run(*command(config, tmp_path), before=before)
    assert status == 1
    *lines, last = [line for line in err.splitlines() if "Warning: " not in line]
    folder = tmp_path / RUN / "checkpoints"
    assert re.fullmatch(
        rf"audiojax: checkpoint \d can't be written to {folder} {problem} and type the "
        "same command again, which starts anew: nothing is saved yet",
        last,
    )
    usual = (
        r"synthetic: |clips by fold: |  \w+ +[\w.]+ +[\w.]+$|computing |fold1-seed0 e"
    )
    assert [line for line in lines if not re.match(usual, line)] == []
    if folder.is_file():
        folder.unlink()
    sweep.train(config, tmp_path)
    assert_same(outcome(config, tmp_path), whole)


# Several processes that share a sweep.


@pytest.mark.slow
def test_three_processes_share_a_sweep_and_one_is_killed(config, tmp_path):
    more = (
        "--config.sweep.seeds=0,1,2",
        "--config.parallel=data_parallel",
        "--config.epochs=8",
    )
    shared = command(config, tmp_path / "shared", *more, folds="1,2")
    names = {f"fold{fold}-seed{seed}" for fold in (1, 2) for seed in range(3)}
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(processes.started(*shared)) for _ in range(3)]
        victim = running[0]

        def its_run():
            """The run that it is in the middle of."""
            for path in (tmp_path / "shared").glob("*/lock"):
                folder = path.parent
                begun = list((folder / "checkpoints").glob("*/manifest.json"))
                if begun and f'"pid": {victim.pid}' in path.read_text():
                    return folder.name
            return None

        if not processes.wait_until(its_run, victim):
            pytest.fail(f"the first came to its end: {processes.ended(victim)}")
        victim.kill()
        left_behind = its_run()
        ends = processes.end_job(running)
    assert [status for status, *_ in ends] == [-signal.SIGKILL, 0, 0], ends
    finished = collections.Counter(
        name
        for _, _, err in ends
        for name in re.findall(r"(fold\d-seed\d): accuracy", err)
    )
    assert finished == dict.fromkeys(names, 1)
    told = ends[1][2] + ends[2][2]
    assert f"{left_behind} was left by process {victim.pid} on" in told
    assert f"{left_behind} goes on at step" in told
    begun = collections.Counter(re.findall(r"(fold\d-seed\d) epoch 1/8", told))
    assert set(begun) >= names - {left_behind}
    assert max(begun.values()) == 1
    results = json.loads((tmp_path / "shared" / "results.json").read_text())
    assert {run["name"] for run in results["runs"]} == names

    # One process alone, on one device as they were: the CPU's sums depend on how many
    # threads there are, and those on how many devices.
    alone = tmp_path / "alone"
    status, _, err = processes.run(*command(config, alone, *more, folds="1,2"))
    assert status == 0, err
    expected = json.loads((alone / "results.json").read_text())
    for run in (*results["runs"], *expected["runs"]):
        assert run.pop("seconds") > 0
    for content in (results, expected):
        del content["config"], content["sha256"]
    assert results == expected
