"""The command, in processes of its own and in this one."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

import audiojax
from audiojax import files, predict
from audiojax.errors import InputError
from tests import processes, trained
from tests.processes import REPO_ROOT
from tests.trained import RATE, ROW

COMMAND = """
import functools, sys
from absl import app
from tests import tiny
from audiojax import command, predict
tiny.register()
predict.define_flags()
def main(argv):
    try:
        predict.main(argv)
    finally:
        told = [n for n in sys.modules if n.partition(".")[0] in HEAVY or
                n.startswith(("audiojax.training", "audiojax.datasets"))]
        print("loaded", told, file=sys.stderr)
HEAVY = ("tensorflow", "tensorflow_datasets", "torch", "clu", "tensorboard", "librosa")
app.run(main, flags_parser=functools.partial(command.parse, None))
"""


@pytest.fixture
def workdir(trained_of):
    return trained_of("crop").workdir


@pytest.fixture
def sounds(tmp_path):
    """A short and a long sound, and much that is none."""
    folder = tmp_path / "sounds"
    (folder / "deep" / ".hidden").mkdir(parents=True)
    rng = np.random.default_rng(0)
    short = rng.normal(0, 0.1, (ROW // 2, 2))
    long = rng.normal(0, 0.1, 3 * 16000)
    soundfile.write(folder / "a.wav", short, RATE)
    soundfile.write(folder / "deep" / "b.flac", long, 16000)
    soundfile.write(folder / "deep" / "short.wav", long[:160], 16000)
    (folder / "deep" / ".hidden" / "x.wav").touch()
    (folder / "notes.txt").write_text("not a sound")
    return folder


def bad_files(folder):
    """Files of sounds by their names, and what is said of them."""
    soundfile.write(folder / "empty.wav", np.zeros(0), RATE)
    (folder / "nothing.wav").touch()
    (folder / "text.mp3").write_text("not a sound at all")
    return {
        "empty.wav": "is empty: it holds no samples",
        "nothing.wav": "is not a readable sound file",
        "text.mp3": "is not a readable sound file",
    }


def run(*arguments, stdin=b""):
    """The command from start to end: status, output, errors."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        cwd=REPO_ROOT,
        env=os.environ
        | {"JAX_COMPILATION_CACHE_DIR": str(REPO_ROOT / ".pytest_cache" / "xla")},
        input=stdin,
        capture_output=True,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_it_tells_files_folders_and_standard_input(workdir, sounds, tmp_path):
    """And does so without TensorFlow, training, or a data set's reader."""
    bad = bad_files(sounds)
    status, out, err = run(
        *(workdir, sounds, "no/such.wav", "-", "--format=jsonl", "--top=9"),
        f"--labels={tmp_path}/labels",
        f"--embeddings={tmp_path}/out/embeddings.npz",
        stdin=(sounds / "a.wav").read_bytes(),
    )
    assert status == 1, err
    for name, what in bad.items():
        (line,) = [line for line in err.splitlines() if f"/{name} " in line]
        assert line.startswith("audiojax: ")
        assert what in line
    assert "audiojax: no/such.wav: there is no such file or folder" in err
    assert "left out, for their names are not those of sounds: notes.txt" in err
    assert "too short to be told: " in err
    assert "loaded []" in err
    assert "hidden" not in out + err
    told = [json.loads(line) for line in out.splitlines()]
    names = [str(sounds / n) for n in ("a.wav", "deep/b.flac", "deep/short.wav")]
    assert [line["file"] for line in told] == [*names, "standard input"]
    opened = audiojax.load(workdir)
    expected = opened.probabilities([*names, names[0]])
    found = [{row["class"]: row["probability"] for row in x["classes"]} for x in told]
    shares = [[row[name] for name in opened.classes] for row in found]
    np.testing.assert_allclose(shares, expected, atol=1e-5)
    assert [len(line["windows"]) for line in told] == [0, 11, 0, 0]
    tracks = sorted(path.name for path in (tmp_path / "labels").iterdir())
    assert tracks == ["a.txt", "b.txt", "short.txt", "standard input.txt"]
    last = (tmp_path / "labels" / "b.txt").read_text().splitlines()[-1]
    assert last.split("\t")[1] == "3.000000"
    arrays = files.read_arrays(tmp_path / "out" / "embeddings.npz")
    assert arrays["filename"].tolist() == [*names, "standard input"]
    features = opened.embeddings([*names, names[0]])
    np.testing.assert_allclose(arrays["embedding"], features, atol=1e-5)
    assert np.bincount(arrays["window_clip"]).tolist() == [1, 11, 1, 1]
    assert arrays["window_embedding"].shape == (14, 32)
    np.testing.assert_allclose(arrays["window_start"][1:4], [0, 0.25, 0.5])


@pytest.mark.slow
def test_all_well_is_status_0(workdir, sounds):
    status, out, err = run(workdir, sounds / "a.wav", "--seeds=1", "--threshold=0")
    assert (status, err) == (0, "loaded []\n")
    assert out.startswith(f"{sounds / 'a.wav'}  ")
    assert all(name in out for name in trained.CLASSES)


@pytest.fixture
def told(command_of):
    """Calls the command in this process, for what ends before anything is computed."""
    command = command_of(predict)

    def told(*arguments):
        status, out, err = command(*arguments)
        assert status == 1
        assert out == ""
        assert err.startswith("audiojax: ")
        assert "Traceback" not in err
        return err

    return told


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "no workdir among the arguments; first give a folder"),
        (["no/such", "a.wav"], "no workdir among no/such, a.wav; first give a folder"),
        (["{w}"], "no sounds given; add files, folders, or -"),
        (["{w}", "-", "-"], "standard input can be read once only"),
        (["{w}", "{s}/a.wav", "--classes=hum,bark"], "there is no class 'bark'; the"),
        (["{w}", "{s}/a.wav", "--seeds=one"], "--seeds is one; give numbers"),
        (["{w}", "{s}/a.wav", "--seeds=5"], "there is no seed 5; choose"),
        (["{w}", "{s}/a.wav", "--overlap=1"], "overlap is 1.0; give a share"),
        (["{w}", "{s}/a.wav", "--embeddings={s}"], "is a folder; give the name"),
        (
            ["{w}", "{s}/a.wav", "--embeddings={s}/a.wav/x.npz"],
            "a.wav/x.npz can't be written (",
        ),
        (["{w}", "{s}/a.wav", "--labels={s}/a.wav/x"], "can't be written ("),
        (["{w}", "{s}", "--labels={s}/x.txt"], "one file, and there are 3 sounds"),
    ],
)
def test_bad_input_ends_in_a_sentence(told, workdir, sounds, arguments, sentence):
    given = [text.format(w=workdir, s=sounds) for text in arguments]
    assert sentence in told(*given)


def test_a_folder_of_training_that_has_no_results_is_no_sound(told, tmp_path, sounds):
    (tmp_path / "begun" / "fold1-seed0").mkdir(parents=True)
    assert "begun: no results.json" in told(tmp_path / "begun", sounds)


def test_sounds_of_the_same_stem_have_names_of_their_own():
    paths = ["a.wav", "b/a.mp3", "a-2.wav", "c/a.wav", "d/a-2.wav"]
    expected = ["a", "a-3", "a-2", "a-4", "a-2-2"]
    assert predict.file_names(paths) == expected


def test_a_folder_without_sounds_is_told(tmp_path):
    (problem,) = predict.find(str(tmp_path))
    assert "there is no sound file in this folder" in str(problem)


class Stdin:
    def __init__(self, data):
        self.buffer = io.BytesIO(data)


def test_standard_input_has_a_limit(monkeypatch):
    monkeypatch.setattr(predict, "MOST_STDIN", 1 << 20)
    monkeypatch.setattr(sys, "stdin", Stdin(bytes(1 << 20)))
    assert len(predict.read_stdin().data) == 1 << 20
    for data, message in [
        (bytes((1 << 20) + 1), r"more than 1\.0 MiB"),
        (b"", "standard input is empty"),
    ]:
        monkeypatch.setattr(sys, "stdin", Stdin(data))
        with pytest.raises(InputError, match=message):
            predict.read_stdin()


def test_importing_it_loads_no_heavy_library():
    heavy = ("tensorflow", "torch", "clu", "librosa", "matplotlib", "sklearn", "orbax")
    rooms = ("audiojax.training", "audiojax.datasets")
    assert processes.loaded(["audiojax.predict"], (*heavy, *rooms)) == []
    assert processes.loaded(["audiojax"], ("flax", "audiojax.predictor")) == []
