"""Each benchmark as it is started, at a tiny size and of tiny networks."""

import os
import re
import subprocess
import sys

import pytest

from tests import sound_tree, stand_ins

# As on a machine that lacks some libraries.
WITHOUT = """
import runpy, sys

class Missing:
    def find_spec(name, *_):
        if name.split(".")[0] in {missing!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing)
runpy.run_module("tests.stand_ins", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of weights for the tiny networks."""
    folder = tmp_path_factory.mktemp("made") / "weights"
    stand_ins.write_weights(folder)
    return folder


def run(repo_root, subject, *options, missing=("torch",), **environment):
    """Runs the benchmark to its end and gives what it printed."""
    code = WITHOUT.format(missing=missing)
    arguments = ["scripts.benchmark", subject, *map(str, options)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=repo_root,
        env=os.environ
        | {
            "XLA_FLAGS": "",
            "JAX_COMPILATION_CACHE_DIR": str(repo_root / ".pytest_cache" / "xla"),
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(out):
    """The rows of the tables printed: (first cell, [further cells])."""
    bodies = re.findall(r"^[|]---.*[|]\n((?:[|].*[|]\n)+)", out, re.MULTILINE)
    lines = "".join(bodies).splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines]
    return [(name, values) for name, *values in cells]


def assert_environment(out):
    """The line that tells what was measured on."""
    line = re.search(r"^.+, \d+ cores, load before the run .*$", out, re.MULTILINE)
    assert line
    assert "JAX on cpu; Python 3." in line[0]
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if "model name" in line]
    if names:
        assert line[0].startswith(f"{names[0]} (family ")


def test_help_names_the_subjects(repo_root):
    command = [sys.executable, "-m", "scripts.benchmark"]
    for arguments, words in (
        (
            ["--help"],
            [
                "{features,augment,models,data,train,recipe,sums,predict,export}",
                "compare the",
            ],
        ),
        (["models", "--help"], ["--models", "PyTorch's networks and ours"]),
    ):
        out = subprocess.run(
            [*command, *arguments], cwd=repo_root, capture_output=True, text=True
        ).stdout
        assert all(word in out for word in words)


@pytest.mark.slow
def test_features(repo_root, tmp_path):
    sound_tree.make_tree(tmp_path, folds=(1,))
    clips = ("--clips", tmp_path / "audio", "--batch", 2, "--repeats", 1)
    missing = ("torch", "tensorflow", "tensorflow_datasets")
    out = run(repo_root, "features", *clips, missing=missing)
    assert_environment(out)
    assert "torch can't be imported here: left out" in out
    difference = re.search(r"difference of librosa from audiojax: (\S+)", out)
    assert difference
    assert float(difference[1]) < 0.02
    (ours, (_, ratio)), (librosa, _) = rows(out)
    assert (ours, ratio, librosa) == ("audiojax", "1.00", "librosa")


def test_features_of_a_folder_without_sounds(repo_root, tmp_path):
    with pytest.raises(AssertionError, match="holds no audio file; give a folder with"):
        run(repo_root, "features", "--clips", tmp_path)


@pytest.mark.slow
def test_augment(repo_root, tmp_path):
    sound_tree.make_tree(tmp_path, folds=(1,))
    clips = ("--clips", tmp_path / "audio", "--batch", 2, "--repeats", 1)
    missing = ("torch", "tensorflow", "tensorflow_datasets")
    out = run(repo_root, "augment", *clips, missing=missing)
    assert_environment(out)
    assert "2 clips of 5 s, 44100 Hz; semitones -2 to 2, rates 0.9 to 1.2" in out
    (ours, (_, ratio)), *others, (none, (_, bare)), (half, _) = rows(out)
    assert (ours, ratio) == ("audiojax", "1.00")
    assert [name for name, _ in others] == ["librosa, a process a core", "librosa"]
    assert (none, bare, half) == ("none changed", "1.000", "half changed")


def test_models_need_little_but_jax(repo_root):
    missing = ("torch", "tensorflow", "tensorflow_datasets", "librosa", "soundfile")
    sizes = ("--models", "resnet50", "--batch", 1, "--repeats", 1)
    out = run(repo_root, "models", *sizes, missing=missing)
    assert_environment(out)
    assert "torch can't be imported here: left out" in out
    assert "resnet50, float32, 1 images of 128x250" in out
    ((name, cells),) = rows(out)
    assert name == "audiojax"
    step, ours, added, *_ = map(float, cells)
    assert step > 0
    assert ours == 1
    assert added > 0


def test_data(repo_root, tmp_path):
    sound_tree.make_tree(tmp_path / "esc10")
    sizes = ("--source_dir", tmp_path / "esc10", "--repeats", 1, "--batch", 4)
    out = run(repo_root, "data", *sizes, "--data_dir", tmp_path)
    assert_environment(out)
    assert "9 clips, 44100 Hz, of 12 files" in out
    prepared = ["audiojax", "librosa, threads", "librosa"]
    read = ["audiojax", "audiojax, images", "librosa"]
    assert [name for name, _ in rows(out)] == prepared + read
    assert [path.name for path in tmp_path.iterdir()] == ["esc10"]


def test_sums(repo_root):
    out = run(repo_root, "sums", "--repeats", 1, "--clips", 20)
    assert_environment(out)
    assert re.search(r"25 runs, sums included: 0\.\d+ s", out)
    assert re.search(r"20 images, 8 MB: 0\.\d+ s", out)


@pytest.mark.slow
def test_predict(repo_root):
    out = run(repo_root, "predict", "--minutes", 0.5, "--model", "resnet18")
    assert_environment(out)
    assert "torch can't be imported here: left out" in out
    assert "resnet18, 0.5 minutes, a window every 2.5 s" in out
    ((name, (windows, speed, ratio, peak)),) = rows(out)
    assert (name, windows, ratio) == ("audiojax", "11", "1.00")
    assert float(speed) > 0
    assert float(peak) > 50


@pytest.mark.slow
def test_train_overhead(repo_root, weights):
    sizes = ("--epochs", 2, "--rounds", 1, "--checkpoint_seconds", 0.5)
    made = {"AUDIOJAX_WEIGHTS": str(weights)}
    out = run(repo_root, "train", "--parts", "overhead", *sizes, **made)
    assert_environment(out)
    assert [name for name, _ in rows(out)] == ["time", "processor time"]
    assert re.search(r"stands still for \d", out)


@pytest.mark.slow
def test_frozen(repo_root):
    """Less is computed and kept where less trains; of the head only its moments."""
    out = run(repo_root, "train", "--parts", "frozen", "--rounds", 1)
    whole, half, head = rows(out)
    assert [whole[0], half[0], head[0]] == ["nothing", "up to conv1", "up to conv2"]
    flops, memory = (
        [float(cells[i]) for _, cells in (whole, half, head)] for i in (2, 3)
    )
    assert flops == sorted(flops, reverse=True)
    assert memory == sorted(memory, reverse=True)
    assert memory[2] == pytest.approx(2 * 4 * (16 * 10 + 10) / 1e6, abs=1e-3)


@pytest.mark.slow
def test_waits(repo_root):
    sizes = ("--rounds", 1, "--data_epochs", 1, "--epoch_clips", 64, "--step_ms", 20)
    out = run(repo_root, "train", "--parts", "waits", *sizes)
    assert "1 epochs of 64 clips of 5 s, 44100 Hz, batch 32, a step of 20 ms" in out
    found = [(stage, cells[0]) for stage, cells in rows(out)]
    drivers = ["threads", "tf.data"]
    assert found == [(s, d) for s in ("audio", "spectrogram") for d in drivers]


def test_export(repo_root):
    pytest.importorskip("onnxruntime", reason="needs the extra `export`")
    sizes = ("--models", "resnet50", "--batches", "1,2", "--repeats", 1)
    out = run(repo_root, "export", *sizes, "--seconds", 1)
    assert_environment(out)
    found = rows(out)
    assert [name for name, _ in found] == ["resnet50", "resnet50"]
    assert [cells[1] for _, cells in found] == ["1", "2"]
    for _, cells in found:
        assert float(cells[2]) > 0


@pytest.mark.slow
def test_recipe(repo_root, weights):
    made = {"AUDIOJAX_WEIGHTS": str(weights)}
    out = run(repo_root, "recipe", "--config", "demo", "--epochs", 2, **made)
    assert_environment(out)
    assert "demo, 2 epochs, " in out
    found = rows(out)
    names = ["audiojax, compiling too", "audiojax, the next one"]
    assert [name for name, _ in found] == names
    assert all(float(minutes) > 0 for _, (minutes, *_) in found)
