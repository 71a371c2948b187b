"""A study of the tiny network on noises, and a `transfer.json` made by hand."""

import dataclasses

import jax
import jax.numpy as jnp

from audiojax import pretrained
from audiojax.study import Study
from configs import common
from tests import tiny, trained

# A score for each (fold, seed) of each training: what stands in the tables is theirs.
SCORES = {
    ("pretrained", None): (0.8, 0.9),
    ("random", None): (0.5, 0.7),
    ("freeze", "conv1"): (0.7, 0.9),
    ("freeze", "conv2"): (0.6, 0.6),
    ("fusion", "conv1"): (0.5, 0.7),
    ("fusion", "conv2"): (0.6, 0.8),
    ("cutoff", "conv2"): None,
    ("probe", "conv1"): (0.4, 0.4),
    ("random_probe", "conv1"): (0.2, 0.3),
}


def write_weights(folder) -> str:
    """Weights of the tiny network that no key of a test draws; gives their file."""
    image = jnp.zeros((1, 16, 16, 3))
    network = tiny.Tiny(num_classes=3)
    variables = network.init(jax.random.key(99), image, train=False)
    path = folder / "tiny.safetensors"
    pretrained.save(path, variables)
    return str(path)


def make_config(weights, **settings):
    """A study of one fold and two seeds, an epoch each."""
    config = trained.make_config()
    config.model.pretrained = weights
    config.sweep.seeds = (0, 1)
    config.study = common.study(**{"clips": 40} | settings)
    return config


def made():
    """What a `transfer.json` may hold."""
    points = []
    for (kind, stage), values in SCORES.items():
        scores = values and {
            "metric": "accuracy",
            "mean": sum(values) / 2,
            "std": abs(values[0] - values[1]) / 2,
            "count": 2,
            "interval": [0.1, 0.95],
            "runs": [
                {"fold": fold, "seed": 0, "score": score}
                for fold, score in zip((1, 2), values, strict=True)
            ],
            "parameters": 1234,
            "flops": 5678.0,
        }
        gain = values and {"mean": sum(values) / 2 - 0.85, "std": 0.0, "count": 2}
        row = {"kind": kind, "stage": stage, "training": kind}
        points.append({**row, "scores": scores, "to_pretrained": gain or None})
    cka = [[1.0, 0.5], [0.25, 0.75]]
    same = {"layers": ["conv1", "conv2"], "cka": cka, "svcca": [0.9, 0.3]}
    similarity = [
        {"name": name, "fold": fold, "seed": 0, **same, "change": [0.125, 0.0]}
        for name in ("pretrained, before and after", "random, before and after")
        for fold in (1, 2)
    ]
    lost = {"name": "random, two seeds", "fold": 1, "seed": 1, "layers": ["conv1"]}
    similarity.append(lost | {"problem": "conv1: features that are the same"})
    config = trained.make_config().to_dict()
    return {
        "config": config,
        "study": dataclasses.asdict(Study()),
        "model": "tiny",
        "stages": ["conv1", "conv2"],
        "metric": "accuracy",
        "points": points,
        "similarity": similarity,
    }
