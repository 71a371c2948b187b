"""The command, on a tiny workdir: what it prints, and what it refuses."""

import re

import jax
import numpy as np
import pytest
import soundfile

from audiojax import activations, compare, similarity
from audiojax.workdir import Workdir
from tests.trained import RATE, ROW


@pytest.fixture
def workdir(trained_of):
    """One fold, two seeds."""
    return trained_of("pad").workdir


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Noises, enough for the tiny network's channels."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for i in range(24):
        samples = rng.normal(0, 0.1, ROW) * np.linspace(0, i / 24, ROW)
        soundfile.write(folder / f"{i:02}.wav", samples, RATE)
    return folder


@pytest.fixture
def command(command_of):
    return command_of(compare)


def test_two_seeds_are_compared_by_their_features(command, workdir, sounds):
    status, out, err = command(workdir, sounds)
    assert (status, err) == (0, "")
    head, *lines = [line.split() for line in out.splitlines()]
    assert head == ["layer", "CKA", "SVCCA", "change", "of", "weights"]
    assert [line[0] for line in lines] == ["conv1", "conv2"]
    opened = Workdir(workdir)
    read = [soundfile.read(clip, dtype="float32") for clip in sorted(sounds.iterdir())]
    image = np.asarray(jax.jit(opened.classifier.image)(np.stack([x for x, _ in read])))
    first, other = (opened.variables(run) for run in opened.runs)
    pooled, pixels = (
        [take(opened.classifier, variables, image) for variables in (first, other)]
        for take in (activations.pooled, activations.pixels)
    )
    for name, *values in lines:
        cka = similarity.cka(pooled[0][name], pooled[1][name])
        svcca = similarity.svcca(pixels[0][name], pixels[1][name])
        assert list(map(float, values[:2])) == pytest.approx([cka, svcca], abs=2e-3)
        assert float(values[2]) > 0.1


def test_layers_can_be_chosen(command, workdir, sounds):
    status, out, _ = command(workdir, sounds, "--layers=conv1.conv1")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["layer", "conv1.conv1"]


@pytest.mark.parametrize(
    ("mode", "arguments", "message"),
    [
        ("pad", ["--seeds=0"], "these were chosen: fold1-seed0 of .*; choose one of"),
        ("crop", [], "were chosen: fold1-seed0 of .*, fold1-seed1 of .*; choose one"),
        ("crop", ["--seeds=0"], "its clip policy is .*; compare runs of one network"),
        ("pad", ["--layers=layer9"], "layer9.*its stages are: conv1, conv2"),
        ("pad", ["--seeds=7"], "there is no seed 7"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    command, workdir, trained_of, sounds, mode, arguments, message
):
    workdirs = dict.fromkeys([workdir, trained_of(mode).workdir])
    status, out, err = command(*workdirs, sounds, *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("audiojax: ")
    assert len(err.splitlines()) == 1
    assert re.search(message, err)


def test_too_few_sounds_are_refused(command, workdir, sounds):
    status, _, err = command(workdir, sounds / "01.wav")
    assert status == 1
    assert "1 clips of" in err
    assert "are too few for" in err


def test_a_sound_that_cannot_be_used_is_named(command, workdir, tmp_path):
    status, _, err = command(workdir, tmp_path / "absent.wav")
    assert status == 1
    assert "absent.wav: there is no such file or folder" in err
