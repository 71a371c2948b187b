"""What averages are worth: beside their members, with the best weights, over folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import optimize

from audiojax.errors import InputError
from audiojax.task import Average, Task


def of_average(
    singles: Sequence[float], logits: np.ndarray, label: np.ndarray, task: Task
) -> dict[str, Any]:
    """What logits [N, classes] that were averaged are worth beside their members.

    Those score `singles` by the task's metric. Labels are [N], or [N, classes].

    Returns:
        `num_clips`; `single`, the mean of the members' scores; `ensemble` and `loss`
        (nats), the average's score and cross-entropy; `gain`, ensemble less single.
    """
    scores, single = task.scores(logits, label), float(np.mean(singles))
    return {
        "num_clips": scores["num_clips"],
        "single": single,
        "ensemble": scores[task.metric],
        "loss": scores["loss"],
        "gain": scores[task.metric] - single,
    }


def over_folds(
    rows: Sequence[Mapping[str, Any]], kinds: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (of the population) of each kind that rows have."""
    return {
        kind: {"mean": float(np.mean(values)), "std": float(np.std(values))}
        for kind in kinds
        if (values := [row[kind] for row in rows if kind in row])
    }


def choose_weights(
    members: Sequence[np.ndarray], label: np.ndarray, average: Average, task: Task
) -> np.ndarray:
    """The weights whose average has the least cross-entropy.

    It is convex in the weights for both averages: of logits, a log-sum-exp of linear
    functions; of probabilities, the negative logarithm of a linear one.

    Members are logits [N, classes] of the same clips, which are clips that the weights
    may see, with labels [N]. What averages them is as `Task.average` gives it.

    Returns:
        [members], none below 0, their sum 1.
    """
    count = len(members)

    def loss(weights: np.ndarray) -> float:
        return task.scores(average(members, weights.tolist()), label)["loss"]

    # Equal weights to start from, so that equal members keep them.
    found = optimize.minimize(
        loss,
        np.full(count, 1 / count),
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints=[{"type": "eq", "fun": lambda weights: weights.sum() - 1}],
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    if not found.success:
        raise InputError(
            f"no weights could be chosen ({found.message}); take --weights=equal"
        )
    weights = np.clip(found.x, 0, None)
    return weights / weights.sum()
