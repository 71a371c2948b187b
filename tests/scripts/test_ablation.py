"""Expected values are computed here from the predictions, by scikit-learn."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics

from audiojax.errors import InputError
from scripts import ablation
from tests.test_ensemble import read, write_workdir

RUNS = [(fold, seed) for fold in (1, 2) for seed in (0, 1)]


@pytest.fixture
def two(tmp_path):
    return [
        write_workdir(tmp_path / "recipe", 1),
        write_workdir(tmp_path / "without", 2, skill=2.0),
    ]


def test_table(two):
    rights, lines = {}, ablation.table([two[0] + "/", two[1]]).splitlines()[2:]
    for path, line in zip(two, lines, strict=True):
        found = [read(path, *run, "validation.npz") for run in RUNS]
        rights[path] = np.array([(x.argmax(1) == y).sum() for x, y in found])
        shares = 100 * rights[path] / 24
        losses = [
            metrics.log_loss(y, np.exp(x) / np.exp(x).sum(1, keepdims=True))
            for x, y in found
        ]
        name, count, accuracy, loss, *_ = map(str.strip, line.split("|")[1:])
        assert (name, count) == (path.rpartition("/")[2], "4")
        assert accuracy == f"{shares.mean():.2f} ± {shares.std():.2f}"
        assert loss == f"{np.mean(losses):.3f}"
    more = rights[two[1]] - rights[two[0]]
    error = np.sqrt(more.var(ddof=1) / 4)
    assert lines[1].endswith(f"| {more.mean():+.2f} ± {error:.2f} |")


def test_runs_of_both_are_compared(two, tmp_path):
    other = write_workdir(tmp_path / "other", 3, folds=(2,), seeds=(1,))
    assert ablation.table([two[0], other]).endswith("| too few runs in common |")


def test_bad_input(two, tmp_path, repo_root):
    nothing_held = write_workdir(tmp_path / "nothing", 3, validation=False)
    with pytest.raises(InputError, match=r"no validation clips in .*validation=fold"):
        ablation.table([two[0], nothing_held])
    with pytest.raises(InputError, match="no finished run"):
        ablation.table([write_workdir(tmp_path / "empty", 4, folds=())])
    command = [sys.executable, "-m", "scripts.ablation", str(tmp_path)]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "not a workdir" in done.stderr
    assert "Traceback" not in done.stderr
