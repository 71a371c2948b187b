import pytest
from ml_collections import ConfigDict

from audiojax import config as configs
from audiojax.errors import InputError


def make_config() -> configs.Config:
    config = ConfigDict({"model": {"name": "a", "pretrained": "x"}, "epochs": 3})
    return config.lock()


def write(tmp_path, body):
    path = tmp_path / "file.py"
    path.write_text(body)
    return str(path)


def test_none_is_read_as_none():
    config = ConfigDict({"model": {"pretrained": "None", "name": "a"}, "epochs": 3})
    configs.read_none(config)
    assert config.to_dict() == {"model": {"pretrained": None, "name": "a"}, "epochs": 3}


def test_fields_to_sweep_come_from_the_file(tmp_path):
    body = 'def get_sweep():\n    return {"epochs": (1, 2), "model.name": ["a", "b"]}\n'
    path = write(tmp_path, body)
    assert configs.fields_to_sweep(path) == {
        "epochs": (1, 2),
        "model.name": ["a", "b"],
    }
    assert configs.fields_to_sweep(path, given=["epochs"]) == {"model.name": ["a", "b"]}


def test_a_file_without_get_sweep_has_none(tmp_path):
    assert configs.fields_to_sweep(write(tmp_path, "x = 1\n")) == {}


@pytest.mark.parametrize("value", ["[1]", '{"epochs": 3}', '{"epochs": ()}'])
def test_what_get_sweep_must_not_give_is_said(tmp_path, value):
    path = write(tmp_path, f"def get_sweep():\n    return {value}\n")
    with pytest.raises(InputError, match="expected a dict of fields and their values"):
        configs.fields_to_sweep(path)


def test_points_are_all_combinations():
    points = configs.points({"epochs": (1, 2), "model.name": ("a", "b")})
    assert points == [
        {"epochs": 1, "model.name": "a"},
        {"epochs": 1, "model.name": "b"},
        {"epochs": 2, "model.name": "a"},
        {"epochs": 2, "model.name": "b"},
    ]
    names = [configs.point_name(point) for point in points]
    assert names[0] == "epochs=1,model.name=a"
    assert len(set(names)) == 4


def test_a_point_changes_a_copy():
    config = make_config()
    changed = configs.at(config, {"epochs": 7, "model.name": "b"})
    assert (changed.epochs, changed.model.name) == (7, "b")
    assert (config.epochs, config.model.name) == (3, "a")


@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        ({"epoch": 3}, "names epoch, a field that the config lacks"),
        ({"modle.name": "b"}, "names modle.name"),
        ({"epochs": "many"}, "gives epochs the value 'many'"),
    ],
)
def test_a_point_that_does_not_fit_is_named(point, sentence):
    with pytest.raises(InputError, match=sentence):
        configs.at(make_config(), point)
