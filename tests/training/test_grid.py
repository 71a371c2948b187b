import json

import pytest

from audiojax.errors import InputError
from audiojax.training import grid
from tests import tiny

FIELDS = {"optimizer.learning_rate": (1e-2, 1e-4), "epochs": (2,)}
FIRST = "optimizer.learning_rate=0.01,epochs=2"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = tiny.get_config()
    config.data.data_dir = str(tmp_path_factory.mktemp("data"))
    config.sweep.folds, config.sweep.seeds = (1,), (0, 1)
    return config.lock()


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("grid")
    return workdir, grid.train(config, workdir, FIELDS)


def test_every_point_is_a_workdir_of_its_own(trained):
    workdir, _ = trained
    for rate in FIELDS["optimizer.learning_rate"]:
        folder = workdir / f"optimizer.learning_rate={rate},epochs=2"
        held = json.loads((folder / "config.json").read_text())["config"]
        assert held["optimizer"]["learning_rate"] == rate
        assert held["epochs"] == 2
        assert len(json.loads((folder / "results.json").read_text())["runs"]) == 2


def test_one_table_holds_all_points(trained):
    workdir, collected = trained
    assert collected == json.loads((workdir / "sweep.json").read_text())
    summary = json.loads((workdir / FIRST / "results.json").read_text())["summary"]
    assert collected["points"][0]["summary"] == summary
    lines = grid.table(collected).splitlines()
    assert lines[0].split() == [
        "optimizer.learning_rate",
        "epochs",
        "single",
        "ensemble",
    ]
    assert lines[1].split()[:2] == ["0.01", "2"]
    assert f"{summary['single']['mean']:.2%}" in lines[1]
    assert len(lines) == 3


def test_evaluating_gives_the_same_table(config, trained):
    workdir, collected = trained
    assert grid.evaluate(config, workdir, FIELDS) == collected


def test_a_field_that_is_not_there_is_named_before_anything_is_trained(
    config, tmp_path
):
    with pytest.raises(InputError, match=r"names optimizer\.rate"):
        grid.train(config, tmp_path, {"epochs": (1,), "optimizer.rate": (1,)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"optimizer.warmup_epochs": (0.0, 2.0)},
            r"warmup_epochs is 2\.0, but the who",
        ),
        ({"data.name": ("synthetic", "esc5")}, r"data\.name is 'esc5'; choose one of"),
        ({"sweep.validation": ("fold", "half")}, "validation is 'half'; give None"),
        ({"model.pretrained": (None, "imagenet")}, "unknown weights 'tiny'"),
    ],
)
def test_a_point_that_can_t_be_trained_is_told_before_the_first_one_is(
    config, tmp_path, fields, sentence
):
    with pytest.raises(InputError, match=sentence):
        grid.train(config, tmp_path, fields)
    assert list(tmp_path.iterdir()) == []
