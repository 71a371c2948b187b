import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from scipy import special

from audiojax import export, files, task
from audiojax.errors import InputError
from audiojax.workdir import Run, Workdir
from tests import processes
from tests.trained import RATE, ROW

ort = pytest.importorskip("onnxruntime", reason="needs the extra `export`")

# It is compiled for three platforms.
SLOW_STABLEHLO = pytest.param("stablehlo", marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def trained(trained_of):
    """A workdir of two finished seeds."""
    return Path(trained_of("pad").workdir)


@pytest.fixture(scope="module")
def held_out(trained, trained_of):
    """The test clips of both runs: waveforms [N, T], and logits as training left them.

    Logits are [runs, N, classes].
    """
    found, opened = trained_of("pad"), Workdir(trained)
    predictions = [opened.predictions(run) for run in opened.runs]
    names = [c.filename for c in found.recordings.info.clips if c.fold == 1]
    audio = np.zeros((len(names), ROW), np.float32)
    for row, (clip, _) in zip(audio, found.clips(), strict=True):
        row[: len(clip)] = clip[:ROW]
    for of_run in predictions:
        assert [str(name) for name in of_run.filename] == names
    return audio, np.stack([of_run.logits for of_run in predictions])


@pytest.fixture
def written(trained, tmp_path):
    """Exports as asked and gives the path."""

    def write(format, seeds=(0,)):
        out = tmp_path / f"model.{format}"
        export.export(trained, out, format=format, fold=1, seeds=seeds)
        return out

    return write


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("seeds", [(0,), (1,), (0, 1)])
def test_onnx_gives_what_training_left(written, held_out, seeds, batch, capfd):
    """Of several seeds the softmax of their mean logits, as the sweep's ensemble."""
    audio, logits = held_out
    session = ort.InferenceSession(written("onnx", seeds))
    (found,) = session.run(["probabilities"], {"audio": audio[:batch]})
    expected = special.softmax(logits[list(seeds)].mean(axis=0)[:batch], axis=-1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert capfd.readouterr().err == ""


def test_onnx_tells_what_its_user_needs(written, trained):
    session = ort.InferenceSession(written("onnx", (0, 1)))
    texts = session.get_modelmeta().custom_metadata_map
    told = {name: json.loads(text) for name, text in texts.items()}
    results = files.read_json(trained / "results.json")
    assert told["labels"] == results["classes"]
    assert told["task"] == "single_label"
    assert told["sample_rate"] == RATE
    assert told["samples"] == ROW
    assert told["clip_mode"] == "pad"
    source = told["source"]
    assert source["workdir"] == str(trained)
    assert source["runs"] == ["fold1-seed0", "fold1-seed1"]
    begun = files.read_json(trained / "config.json")
    assert source["versions"] == begun["versions"]
    (given,) = session.get_inputs()
    assert (given.name, given.type) == ("audio", "tensor(float)")
    assert given.shape == ["batch", told["samples"]]
    (result,) = session.get_outputs()
    assert (result.name, result.shape) == ("probabilities", ["batch", 3])


@pytest.mark.slow
def test_stablehlo_gives_what_training_left(written, trained, held_out):
    audio, logits = held_out
    out = written("stablehlo", (0, 1))
    exported = jax_export.deserialize(bytearray(out.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    expected = special.softmax(logits.mean(axis=0), axis=-1)
    for batch in (1, 7):
        found = exported.call(jnp.asarray(audio[:batch]))
        np.testing.assert_allclose(found, expected[:batch], atol=1e-4)
    told = files.read_sealed(f"{out}.json", "")
    assert told["labels"] == list(Workdir(trained).classes)
    assert told["source"]["runs"] == ["fold1-seed0", "fold1-seed1"]


@pytest.mark.parametrize("format", ["onnx", SLOW_STABLEHLO])
@pytest.mark.parametrize("mode", ["pad", "stretch"])
def test_several_labels_and_stretched_images(trained, format, mode):
    opened = Workdir(trained)
    read = export.read(opened, opened.runs[:1])
    policy = dataclasses.replace(read.classifier.clip_policy, mode=mode)
    changed = dataclasses.replace(
        read.classifier, clip_policy=policy, task=task.TASKS["multi_label"]
    )
    model = dataclasses.replace(read, classifier=changed)
    write, read_back = export.FORMATS[format]
    run = read_back(write(model))
    inputs = export.made_sounds(changed, 3)
    found = run(inputs)
    image = changed.image(*map(jnp.asarray, inputs.values()))
    expected = special.expit(np.asarray(changed.logits(read.members[0], image)))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert ("length" in inputs) == (mode == "stretch")


@pytest.mark.parametrize("format", ["onnx", SLOW_STABLEHLO])
def test_what_computes_something_else_is_not_written(
    trained, tmp_path, monkeypatch, format
):
    out = tmp_path / "model"
    out.write_text("as before")
    write, read_back = export.FORMATS[format]

    def wrong(model):
        other = {"input": {"mean": np.ones(3), "std": np.ones(3)}}
        members = [model.members[0] | other]
        return write(dataclasses.replace(model, members=members))

    monkeypatch.setitem(export.FORMATS, format, (wrong, read_back))
    with pytest.raises(InputError, match=r"are off by .*, so it was not written"):
        export.export(trained, out, format=format, fold=1, seeds=[0])
    assert out.read_text() == "as before"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_that_diverged_is_refused(trained, tmp_path, monkeypatch):
    nan = Workdir(trained).variables(Run(1, 0))
    nan["input"]["mean"] = np.full(3, np.nan, np.float32)
    monkeypatch.setattr(Workdir, "variables", lambda *_: nan)
    with pytest.raises(InputError, match="not finite, its training diverged"):
        export.export(trained, tmp_path / "m", seeds=[0])


def test_what_was_trained_in_bfloat16_computes_in_float32(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "w")
    results = files.read_sealed(tmp_path / "w" / "results.json", "")
    results["config"]["model"]["dtype"] = "bfloat16"
    files.write_sealed(tmp_path / "w" / "results.json", results)
    assert export.export(tmp_path / "w", tmp_path / "m", seeds=[0]) < 1e-5


@pytest.fixture
def unfinished(trained, tmp_path):
    """The workdir as it is while a third seed trains."""
    shutil.copytree(trained, tmp_path / "u")
    results = files.read_sealed(tmp_path / "u" / "results.json", "")
    results["config"]["sweep"]["seeds"] = [0, 1, 2]
    files.write_sealed(tmp_path / "u" / "results.json", results)
    return tmp_path / "u"


def test_unfinished_runs_are_named(unfinished, tmp_path):
    there = "finished: fold1-seed0, fold1-seed1; not finished: fold1-seed2"
    with pytest.raises(InputError, match=f"{there}; fold1-seed2 can't be used yet"):
        export.export(unfinished, tmp_path / "m", seeds=[0, 2])
    assert export.choose(Workdir(unfinished), 1, [1]) == [Run(1, 1)]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({}, "finished: fold1-seed0, fold1-seed1; choose with --fold and --seed"),
        ({"seeds": [0, 5]}, "there is no seed 5; choose others"),
        ({"fold": 3}, "there is no fold 3; choose others"),
        ({"format": "tflite"}, "--format is 'tflite'; choose one of onnx, stablehlo"),
    ],
)
def test_choices_that_are_not_there(trained, tmp_path, choice, message):
    with pytest.raises(InputError, match=message):
        export.export(trained, tmp_path / "m", **choice)
    assert list(tmp_path.iterdir()) == []


def test_bad_places(trained, tmp_path):
    with pytest.raises(InputError, match="so this is not a workdir"):
        export.export(tmp_path, tmp_path / "m")
    with pytest.raises(InputError, match="is a folder; give the name of a file"):
        export.export(trained, tmp_path, seeds=[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        export.export(trained, tmp_path / "file" / "m", seeds=[0])


def test_the_extra_is_named_where_it_is_missing(trained, tmp_path, monkeypatch):
    for name in ("onnx", "audiojax.to_onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install 'audiojax\[export\]'"):
        export.export(trained, tmp_path / "m", seeds=[0])
    assert list(tmp_path.iterdir()) == []


def run(repo_root, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "tests.stand_ins", "audiojax.export", *arguments],
        cwd=repo_root,
        env=os.environ | {"XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_command(repo_root, trained, tmp_path):
    out = tmp_path / "model.onnx"
    # The stand-in for every network is the tiny one, under other names.
    shutil.copytree(trained, tmp_path / "w")
    results = files.read_sealed(tmp_path / "w" / "results.json", "")
    results["config"]["model"]["name"] = "resnet18"
    files.write_sealed(tmp_path / "w" / "results.json", results)
    done = run(repo_root, str(tmp_path / "w"), f"--out={out}", "--fold=1", "--seed=0,1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert f"model     {out}  (" in done.stdout
    assert "compared  probabilities differ by" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=m"], "0 workdirs given"),
        (["w"], "no --out; give the file, such as --out=model.onnx"),
        (["w", "--out=m", "--seed=one"], "--seed is one; give numbers"),
        (["w", "--out=m", "--format=tflite"], "should be one of <onnx|stablehlo>"),
    ],
)
@pytest.mark.slow
def test_bad_flags_end_in_one_sentence(repo_root, arguments, message):
    done = run(repo_root, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_exporting_loads_no_training():
    heavy = ("tensorflow", "audiojax.training", "orbax.checkpoint", "onnx")
    assert processes.loaded(["audiojax.export"], heavy) == []
