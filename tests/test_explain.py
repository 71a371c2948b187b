"""The command, on a tiny workdir: what it writes, and what it refuses."""

import json

import numpy as np
import pytest
import soundfile

from audiojax import explain, files
from tests import processes, trained
from tests.test_pictures import size_of
from tests.trained import RATE, ROW


@pytest.fixture
def workdir(trained_of):
    return trained_of("crop").workdir


@pytest.fixture
def sounds(tmp_path):
    """Three noises, and files that are no sounds."""
    folder = tmp_path / "sounds"
    (folder / "bad").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, length in [("a", ROW), ("b", ROW // 2), ("c", 3 * ROW)]:
        soundfile.write(folder / f"{name}.wav", rng.normal(0, 0.1, length), RATE)
    soundfile.write(folder / "bad" / "empty.wav", np.zeros(0), RATE)
    (folder / "bad" / "text.mp3").write_text("not a sound")
    return folder


@pytest.fixture
def command(command_of):
    return command_of(explain)


def test_it_writes_pictures_sounds_and_numbers(command, workdir, sounds, tmp_path):
    out = tmp_path / "out"
    status, told, err = command(
        *(workdir, sounds / "a.wav", sounds / "b.wav", sounds / "c.wav"),
        *(
            sounds / "bad",
            f"--out={out}",
            "--target=hum",
            "--method=grad_cam",
            "--seeds=1",
        ),
    )
    assert status == 1
    assert "empty.wav is empty: it holds no samples" in err
    assert "text.mp3 is not a readable sound file" in err
    *lines, mean = told.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        str(sounds / f"{name}.wav") for name in "abc"
    ]
    of_each = [json.loads((out / f"{name}.json").read_text()) for name in "abc"]
    areas = {
        name: np.array([[x[name]["area"], x[name]["random_area"]] for x in of_each])
        for name in ("deletion", "insertion")
    }
    deletion, insertion = areas["deletion"], areas["insertion"]
    assert mean == (
        "mean of 3 sounds  deletion {:.3f} (random {:.3f}, less for {})".format(
            *deletion.mean(axis=0), sum(deletion[:, 0] < deletion[:, 1])
        )
        + "  insertion {:.3f} (random {:.3f}, greater for {})".format(
            *insertion.mean(axis=0), sum(insertion[:, 0] > insertion[:, 1])
        )
    )
    endings = ("json", "kept.wav", "left.wav", "npz", "png")
    written = {path.name for path in out.iterdir()}
    assert {f"{name}.{end}" for name in "abc" for end in endings} <= written
    numbers = json.loads((out / "c.json").read_text())
    assert numbers["file"] == str(sounds / "c.wav")
    assert numbers["target"] == "hum"
    assert numbers["runs"] == {str(workdir): ["fold1-seed1"]}
    assert numbers["start"] in (0, 0.5, 1.0)
    for curve in (numbers["deletion"], numbers["insertion"]):
        area = np.trapezoid(curve["probability"], numbers["share"])
        assert curve["area"] == pytest.approx(area)
        random = np.trapezoid(np.array(curve["random"]), numbers["share"], axis=1)
        assert curve["random_area"] == pytest.approx(random.mean())
    assert len(numbers["redrawn_weights"]["likeness"]) == 3
    arrays = files.read_arrays(out / "c.npz")
    assert arrays["attribution"].shape == arrays["image"].shape == (16, 16, 3)
    assert numbers["sum"] == pytest.approx(arrays["attribution"].sum(), rel=1e-5)
    assert arrays["hertz"].shape == arrays["seconds"].shape == (16,)
    kept, left = (soundfile.read(out / f"c.{part}.wav")[0] for part in ("kept", "left"))
    np.testing.assert_allclose(kept + left, arrays["samples"], atol=1e-6)
    start = int(numbers["start"] * RATE)
    clip = soundfile.read(sounds / "c.wav")[0][start : start + ROW]
    np.testing.assert_allclose(kept + left, clip, atol=1e-4)
    predicted = {
        json.loads((out / f"{n}.json").read_text())["predicted"] for n in "abc"
    }
    classes = [(i, c) for i, c in enumerate(trained.CLASSES) if c in predicted]
    pictures_of_classes = {path for path in written if path.startswith("class")}
    assert pictures_of_classes == {
        f"class{i}-{name}.{what}.png"
        for i, name in classes
        for what in ("sheet", "mean")
    }
    assert size_of(out / "a.png")[0] == 1100


@pytest.mark.slow
def test_integrated_gradients_are_the_default(command, workdir, sounds, tmp_path):
    status, told, _ = command(workdir, sounds / "a.wav", f"--out={tmp_path}/out")
    assert status == 0
    arrays = files.read_arrays(tmp_path / "out" / "a.npz")
    assert arrays["waveform_attribution"].shape == arrays["samples"].shape == (ROW,)
    numbers = json.loads((tmp_path / "out" / "a.json").read_text())
    assert numbers["method"] == "integrated_gradients"
    difference = numbers["logit"] - numbers["logit_of_silence"]
    assert numbers["sum"] == pytest.approx(difference, rel=0.01)
    completeness = numbers["completeness"]
    assert completeness["sum"] == pytest.approx(numbers["sum"] / difference)
    alone = f"{completeness['gradients_alone']:.1%}"
    assert f"complete to 100.0% (gradients alone {alone})" in told
    assert not list((tmp_path / "out").glob("class*"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "no workdir among the arguments; first give a folder"),
        (["no/such", "a.wav"], "no workdir among no/such, a.wav; first give a folder"),
        (["{w}", "--out={s}/x"], "no sounds given; add files, folders, or -"),
        (["{w}", "{s}/a.wav"], "no --out; give the folder that is written to"),
        (["{w}", "-", "-", "--out={s}/x"], "standard input can be read once only"),
        (["{w}", "{s}/a.wav", "--out={s}/a.wav"], "can't be written ("),
        (["{w}", "{s}/a.wav", "--out={s}/x", "--target=bark"], "no class 'bark'; the"),
        (
            ["{w}", "{s}/a.wav", "--out={s}/x", "--seeds=5"],
            "there is no seed 5; choose",
        ),
        (["{w}", "{s}/a.wav", "--out={s}/x", "--folds=one"], "--folds is one; give nu"),
        (["{w}", "{s}/no.wav", "--out={s}/x"], "there is no such file or folder"),
    ],
)
def test_bad_input_ends_in_a_sentence(command, workdir, sounds, arguments, sentence):
    given = [text.format(w=workdir, s=sounds) for text in arguments]
    status, out, err = command(*given)
    assert (status, out) == (1, "")
    assert err.startswith("audiojax: ")
    assert sentence in err


def test_what_is_worthless_is_named(caplog):
    class Found:
        worthless = incomplete = True

    explain.warn({"a": Found()})  # pyright: ignore[reportArgumentType]
    assert "worthless, for they do not depend on the weights" in caplog.text
    assert "incomplete: the sum of the attribution is off by more than" in caplog.text
    assert caplog.text.endswith(": a\n")


def test_importing_it_loads_no_heavy_library():
    heavy = ("tensorflow", "torch", "clu", "librosa", "orbax")
    rooms = ("audiojax.training", "audiojax.datasets")
    assert processes.loaded(["audiojax.explain"], (*heavy, *rooms)) == []
