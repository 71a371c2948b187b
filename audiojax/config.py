"""Configs: what they are, values read from text, and the fields to sweep over."""

from __future__ import annotations

import functools
import itertools
import operator
import runpy
from collections.abc import Mapping, Sequence
from typing import Any

from flax import traverse_util
from ml_collections import ConfigDict

from audiojax.errors import InputError

# An ml_collections.ConfigDict. Its fields are known to the config files alone, so a
# type checker can say nothing of them.
Config = Any

# Values of fields, by their names with points.
Point = dict[str, Any]

# What configs of older versions lack, with the values that mean what was done then.
LATER: Point = {
    "accumulate": 1,
    "data.test_shifts": 0,
    "features.top_db": 0.0,
    "model.cut": None,
    "model.drop_path": 0.0,
    "model.freeze": None,
    "model.he_fan_out": False,
    "model.keep_batch_norm": False,
    "model.reinitialize": None,
    "model.remat": False,
    "model.update_batch_norm": False,
    "optimizer.head_factor": 1.0,
    "optimizer.layer_decay": 1.0,
}


def completed(config: Mapping[str, Any]) -> Point:
    """The fields of a config that may be older than this version, with all of ours."""
    fields = traverse_util.flatten_dict(config, sep=".")
    adamw = fields.get("optimizer.name") == "adamw"
    return LATER | {"optimizer.decay": "kernels" if adamw else "all"} | fields


def read_none(config: Config) -> None:
    """Makes None of the text "None", which is how a flag gives it."""
    with config.ignore_type():
        for name, value in config.items():
            if isinstance(value, ConfigDict):
                read_none(value)
            elif value == "None":
                config[name] = None


def fields_to_sweep(path: str, given: Sequence[str] = ()) -> dict[str, Sequence[Any]]:
    """What `get_sweep()` of a config file returns; nothing if it has none.

    Args:
        path: of the config file.
        given: fields that the command line decides, which are not swept over.

    Raises:
        InputError: if it is not a dict of names and their values.
    """
    name = path.partition(":")[0]
    get_sweep = runpy.run_path(name).get("get_sweep")
    if get_sweep is None:
        return {}
    fields = get_sweep()
    wrong = not isinstance(fields, Mapping) or [
        field
        for field, values in fields.items()
        if not isinstance(values, list | tuple) or not values
    ]
    if wrong:
        raise InputError(
            f"get_sweep() of {name} gives {fields!r}; expected a dict of fields and "
            'their values, such as {"optimizer.learning_rate": (1e-4, 1e-3)}'
        )
    return {field: values for field, values in fields.items() if field not in given}


def points(fields: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Every combination of the fields' values; one without any for no fields."""
    return [
        dict(zip(fields, values, strict=True))
        for values in itertools.product(*fields.values())
    ]


def point_name(point: Point) -> str:
    """The point as the name of a folder: model.name=resnet50,epochs=70."""
    text = ",".join(f"{field}={value}" for field, value in point.items())
    return text.replace("/", "_").replace(" ", "")


def at(config: Config, point: Point) -> Config:
    """A copy of the config with the fields of the point.

    Raises:
        InputError: if there is no such field, or it has another type.
    """
    copy = config.copy_and_resolve_references().lock()
    for field, value in point.items():
        *parents, name = field.split(".")
        try:
            functools.reduce(operator.getitem, parents, copy)[name] = value
        except (KeyError, AttributeError):
            raise InputError(
                f"get_sweep() names {field}, a field that the config lacks"
            ) from None
        except (TypeError, ValueError) as error:
            raise InputError(
                f"get_sweep() gives {field} the value {value!r}: {error}"
            ) from None
    return copy
