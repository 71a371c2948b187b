"""The command as it is typed; what it does is tested in training/test_study.py."""

import os
import subprocess
import sys

import pytest

ESC10 = "--config=configs/study_esc10.py"


@pytest.fixture
def run(repo_root, tmp_path):
    """Runs the command to its end: exit status, standard output, standard error."""

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "audiojax.transfer", *arguments],
            cwd=repo_root,
            env=os.environ | {"XLA_FLAGS": "", "XDG_CACHE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "no config given; add --config configs/NAME.py"),
        ([ESC10, "fold1"], "unknown argument 'fold1'"),
        (["--config=configs/demo.py"], "the config has no field study"),
        (
            [ESC10, "--config.study.stages='blocks.9',"],
            "'blocks.9', which the network lacks; choose some of conv_stem, blocks.0",
        ),
        (
            [ESC10, "--config.study.clips=100"],
            "conv_head: 100 clips of 16 pixels are too few for 1280 dimensions",
        ),
        ([ESC10, "--config.model.pretrained=None"], "a study compares random weights"),
    ],
    ids=["no config", "argument", "no study", "stage", "clips", "random"],
)
def test_bad_input_is_one_sentence(run, tmp_path, arguments, sentence):
    workdir = tmp_path / "w"
    status, _, err = run(*arguments, f"--workdir={workdir}")
    assert status == 1
    assert sentence in err
    assert err.strip().splitlines()[-1].startswith("audiojax: ")
    assert "Traceback" not in err
    assert not workdir.exists()
