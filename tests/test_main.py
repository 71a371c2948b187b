import os
import signal
import subprocess
import sys
import time

import pytest

from audiojax import ensemble
from tests.processes import COMMAND
from tests.sound_tree import write_sound


@pytest.fixture
def start(repo_root):
    """Starts the command in a process of its own, on one device."""

    def start(*arguments):
        programs = str(repo_root / ".pytest_cache" / "xla")
        environment = os.environ | {
            "XLA_FLAGS": "",
            "JAX_COMPILATION_CACHE_DIR": programs,
            "PYTHONWARNINGS": "default",
        }
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments],
            cwd=repo_root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def run(start):
    """Runs the command to its end: exit status, standard output, standard error."""

    def run(*arguments):
        process = start(*arguments)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    return run


def tiny_arguments(tmp_path, *more):
    return [
        "--config=tests/tiny.py",
        f"--config.data.data_dir={tmp_path / 'data'}",
        f"--workdir={tmp_path / 'work'}",
        "--config.sweep.folds=1,",
        *more,
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config=configs/no_such.py"], "no_such.py"),
        (
            ["--config=configs/demo.py", "--config.modle.name=x"],
            "the config has no field 'modle'; did you mean 'model'?",
        ),
        (
            ["--config=configs/demo.py", "--wrkdir=x"],
            "there is no flag --wrkdir; did you mean --workdir?",
        ),
        (
            ["--config=configs/demo.py", "--config.epochs=three"],
            "flag --config.epochs=three: invalid literal for int()",
        ),
        (["--config=configs/demo.py", "three"], "unknown argument 'three'"),
        ([], "no config given"),
        (
            ["--config=configs/demo.py", "--config.model.name=resnet51"],
            "unknown model 'resnet51'; the known ones are",
        ),
        (
            ["--config=configs/esc10_efficientnet.py", "--config.data.source_dir=docs"],
            "meta/esc50.csv",
        ),
    ],
)
def test_bad_input_ends_in_one_sentence(run, tmp_path, arguments, sentence):
    status, _, err = run(*arguments, f"--workdir={tmp_path / 'work'}")
    assert status == 1
    assert "Traceback" not in err
    said = [line for line in err.splitlines() if line.startswith("audiojax: ")]
    assert len(said) == 1
    assert sentence in said[0]


def test_train_then_evaluate(run, tmp_path):
    status, out, err = run(*tiny_arguments(tmp_path))
    assert status == 0, err
    assert f"workdir {tmp_path / 'work'}" in out
    assert "results.json" in out
    assert "confusion.png" in out
    page = tmp_path / "work" / "report.html"
    assert f"report       {page}\n" in out
    text = page.read_text("utf-8")
    assert text.startswith("<!DOCTYPE html>")
    # Mistakes can be heard, and what was looked at in them is seen.
    assert text.count("<audio") == text.count("What spoke for") > 0
    assert (tmp_path / "work" / "confusion.png").read_bytes()[:4] == b"\x89PNG"
    assert "--mode evaluate" in out
    again, evaluated, err = run(*tiny_arguments(tmp_path), "--mode=evaluate")
    assert again == 0, err
    assert "the same as" in evaluated
    scores = [line for line in out.splitlines() if line.strip().startswith("mean")]
    assert scores[0] in evaluated.splitlines()


def test_a_workdir_that_no_checkpoint_can_be_written_to_is_refused(run):
    status, out, err = run("--config=configs/demo.py", "--workdir=caf\udce9")
    assert (status, out) == (1, "")
    sentence = r"--workdir is 'caf\udce9'; give a folder whose name is UTF-8 text"
    assert f"audiojax: {sentence}\n" in err


def wait_for_checkpoint(process, checkpoints):
    """Returns as soon as the first checkpoint is whole."""
    deadline = time.monotonic() + 200
    while not list(checkpoints.glob("*/manifest.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("signum", "status"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_says_how_to_go_on(start, run, tmp_path, signum, status):
    long = tiny_arguments(tmp_path, "--config.epochs=1000")
    process = start(*long)
    checkpoints = tmp_path / "work" / "fold1-seed0" / "checkpoints"
    wait_for_checkpoint(process, checkpoints)
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert "type the same command again to go on" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_any_name_of_a_class_goes_the_whole_way(run, tmp_path, monkeypatch):
    """Trained, drawn, evaluated and averaged, where the output can only be ASCII."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    sounds, workdir = tmp_path / "sounds", tmp_path / "caf\xe9"
    names = ["$x^2$", "a\nb", r"a\frac{", "caf\udce9", "\u05e9\u05dc"]
    for i, name in enumerate(names):
        for k, file in enumerate(["1.wav", "2 \udcff$\n.wav"]):
            write_sound(tmp_path / "sound.wav", 2 * i + k, 8000, 1)
            (sounds / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "sound.wav").rename(sounds / name / file)
    arguments = [
        *("--config=configs/my_audio.py", f"--workdir={workdir}"),
        *(f"--config.data.source_dir={sounds}", f"--config.data.data_dir={tmp_path}"),
        *("--config.model.name=tiny", "--config.model.pretrained=None"),
        *("--config.features.sample_rate=8000", "--config.features.n_fft=800"),
        *("--config.features.n_mels=16", "--config.features.frames=16"),
        *("--config.data.clip_seconds=0.5", "--config.data.num_folds=2"),
        *("--config.epochs=1", "--config.optimizer.warmup_epochs=0.0"),
        *("--config.batch_size=5", "--config.tensorboard=False"),
    ]
    status, out, err = run(*arguments)
    assert status == 0, err
    assert rf"workdir {tmp_path}/caf\xe9" in out
    assert r"\u05e9\u05dc" in err
    assert (workdir / "confusion.png").read_bytes()[:4] == b"\x89PNG"
    status, out, err = run(*arguments, "--mode=evaluate")
    assert status == 0, err
    assert "the same as" in out
    classes = ensemble.ensemble([str(workdir)])["classes"]
    assert sorted(classes) == sorted(names)
