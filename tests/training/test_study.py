"""A small study from its config to its pages, and what is refused before it."""

import csv
import json

import jax
import numpy as np
import pytest

from audiojax import report
from audiojax.errors import InputError
from audiojax.training import study, sweep
from audiojax.workdir import Run, Workdir
from tests import studies, trained

POINTS = {
    ("pretrained", None): "pretrained",
    ("random", None): "random",
    ("freeze", "conv1"): "freeze=conv1",
    ("freeze", "conv2"): "freeze=conv2",
    # The random network, trained once.
    ("fusion", "conv1"): "random",
    ("fusion", "conv2"): "fusion=conv2",
    ("cutoff", "conv2"): "cutoff=conv2",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return studies.write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def recordings():
    return trained.make_recordings()


@pytest.fixture(scope="module")
def studied(weights, recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    config = studies.make_config(weights, layers=("conv2.bn2",)).lock()
    return folder, config, study.train(config, folder, recordings=recordings)


def test_each_training_is_a_workdir_and_the_same_are_trained_once(studied):
    folder, _, found = studied
    rows = [row for row in found["points"] if row["training"]]
    assert {(row["kind"], row["stage"]): row["training"] for row in rows} == POINTS
    trainings = {
        path.name for path in folder.iterdir() if (path / "data.json").exists()
    }
    assert trainings == set(POINTS.values())
    for row in rows:
        config = Workdir(folder / row["training"]).config
        assert "study" not in config
        assert len(row["scores"]["runs"]) == 2
    scores = {(row["kind"], row["stage"]): row["scores"] for row in rows}
    assert scores["fusion", "conv1"] == scores["random", None]
    assert scores["cutoff", "conv2"]["parameters"] == 27 * 8 + 2 * 8 + 8 * 3 + 3


def test_what_was_frozen_did_not_change(studied):
    folder, _, _ = studied
    begun = Workdir(folder / "pretrained").classifier.init(jax.random.key(0))
    ended = Workdir(folder / "freeze=conv1").variables(Run(1, 0))
    for name in ("conv1", "bn1"):
        for part in ("params", "batch_stats"):
            for key, value in ended[part].get(name, {}).items():
                np.testing.assert_array_equal(value, begun[part][name][key])
    assert np.any(
        ended["params"]["conv2"]["kernel"] != begun["params"]["conv2"]["kernel"]
    )


def test_probes_and_similarity_are_of_every_stage(studied):
    *_, found = studied
    probes = [row for row in found["points"] if row["training"] is None]
    places = [(row["kind"], row["stage"]) for row in probes]
    kinds = ("probe", "random_probe")
    assert places == [(kind, stage) for kind in kinds for stage in found["stages"]]
    layers, told = ["conv1", "conv2.bn2", "conv2"], []
    for row in found["similarity"]:
        told.append((row["name"], row["fold"], row["seed"]))
        assert row["layers"] == layers
        assert np.shape(row["cka"]) == (3, 3)
        assert len(row["svcca"]) == len(row["change"]) == 3
    ways = ("before and after", 0), ("before and after", 1), ("two seeds", 1)
    expected = [
        (f"{kind}, {way}", 1, seed)
        for kind in ("pretrained", "random")
        for way, seed in ways
    ]
    assert told == expected


def test_files_tell_the_same_and_the_report_shows_them(studied):
    folder, _, found = studied
    written = json.loads((folder / "transfer.json").read_text())
    assert written.pop("sha256")
    assert written.pop("format")
    assert written == json.loads(json.dumps(found))
    with (folder / "transfer.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(POINTS) + 4
    for name in ("transfer", "similarity", "layers"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = report.write_page([folder]).read_text()
    assert page.count("<svg") == 3
    assert "frozen up to conv1" in page


def test_typed_again_nothing_is_trained_or_measured(studied, recordings, monkeypatch):
    folder, config, found = studied

    def refuse(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(sweep, "train", refuse)
    monkeypatch.setattr(study.measure, "_probe", refuse)
    monkeypatch.setattr(study.measure, "_compare", refuse)
    assert study.train(config, folder, recordings=recordings) == found


def test_a_damaged_measure_is_made_again(studied, recordings, monkeypatch):
    folder, config, found = studied
    path = next((folder / "measures").glob("probe-*"))
    path.write_text(path.read_text()[:-20])
    monkeypatch.setattr(sweep, "train", None)
    assert study.train(config, folder, recordings=recordings) == found


def test_the_repetition_trains_its_own_random_stages(weights):
    planned = study.plan(studies.make_config(weights, choices="repetition").lock())
    folders = {(p.kind, p.stage): folder for p, folder in planned.points}
    # With BatchNorm kept, that of no stage is the random network.
    assert folders["fusion", "conv1"] == "fusion=conv1"
    config = planned.configs("w")["w/fusion=conv2"]
    assert (config.model.keep_batch_norm, config.model.he_fan_out) == (True, True)
    assert planned.configs("w")["w/freeze=conv1"].model.update_batch_norm


@pytest.mark.parametrize(
    ("settings", "model", "sentence"),
    [
        ({"stages": ("conv9",)}, {}, "'conv9', which the network lacks; choose some"),
        ({"layers": ("conv1.x",)}, {}, r"no layer 'conv1\.x'; in conv1 there are"),
        ({"clips": 3}, {}, "conv2: 3 clips of 4 pixels are too few for 16 dimensions"),
        ({"clips": 41}, {}, "clips is 41, but .* has 40 clips; give at most so many"),
        ({}, {"pretrained": None}, "pretrained is None; a study compares random"),
        (
            {},
            {"freeze": "conv1"},
            r"config\.model\.freeze is 'conv1', but a study sets",
        ),
        ({}, {"cut": "conv2"}, r"config\.model\.cut is 'conv2', but a study sets it"),
    ],
)
def test_what_can_t_be_studied_is_told_before_any_training(
    weights, recordings, tmp_path, settings, model, sentence
):
    config = studies.make_config(weights, **settings)
    config.model.update(model)
    with pytest.raises(InputError, match=sentence):
        study.train(config.lock(), tmp_path / "w", recordings=recordings)
    assert not (tmp_path / "w").exists()


def test_a_config_without_a_study_is_told(tmp_path):
    with pytest.raises(InputError, match=r"no field study, .* configs/study_esc10"):
        study.train(trained.make_config().lock(), tmp_path)


def test_a_workdir_of_another_network_is_told_before_any_training(
    studied, recordings, tmp_path
):
    folder, config, _ = studied
    other = config.copy_and_resolve_references()
    other.model.batch_norm_momentum = 0.5
    with pytest.raises(InputError, match=r"batch_norm_momentum: there 0\.9, here 0\.5"):
        study.train(other.lock(), folder, recordings=recordings)
