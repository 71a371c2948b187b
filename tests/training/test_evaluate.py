import jax.numpy as jnp
import numpy as np
import pytest

from audiojax import clips
from audiojax.training import evaluate
from tests.test_clips import windows_of


def test_predict_counts_every_clip_once():
    """Of a padded last batch only the real clips come back, in order."""

    def eval_step(_variables, batch):
        return jnp.stack([batch["index"] * 1.0, batch["index"] * 2.0], axis=-1)

    batches = [
        {"index": np.array([4, 7]), "label": np.array([0, 1]), "mask": np.ones(2)},
        {
            "index": np.array([2, 2]),
            "label": np.array([1, 1]),
            "mask": np.array([1.0, 0.0]),
        },
    ]
    logits, label, index = evaluate.predict(eval_step, {}, batches)
    np.testing.assert_array_equal(logits, [[4, 8], [7, 14], [2, 4]])
    np.testing.assert_array_equal(label, [0, 1, 1])
    np.testing.assert_array_equal(index, [4, 7, 2])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 16])
def test_predict_joins_windows_over_the_ends_of_batches(batch_size):
    logits, label, index = windows_of([2, 3, 1, 5])
    rows = np.minimum(np.arange(-(-len(index) // batch_size) * batch_size), 10)
    mask = np.arange(len(rows)) < len(index)
    batches = [
        {
            "logits": logits[rows[i : i + batch_size]],
            "label": label[rows[i : i + batch_size]],
            "index": index[rows[i : i + batch_size]],
            "mask": mask[i : i + batch_size].astype(np.float32),
        }
        for i in range(0, len(rows), batch_size)
    ]
    found = evaluate.predict(lambda _, batch: batch["logits"], {}, batches)
    for ours, expected in zip(found, clips.by_clip(logits, label, index), strict=True):
        np.testing.assert_array_equal(ours, expected)
