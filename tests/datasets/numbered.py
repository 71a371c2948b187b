"""Recordings whose clips hold their own numbers, and batches of them."""

import dataclasses

import numpy as np

from audiojax.clips import ClipPolicy
from audiojax.datasets import Clip, Info, Recordings, batches

SIZE = 100  # samples asked for
PAD = ClipPolicy("pad", SIZE)
CROP = ClipPolicy("crop", SIZE, 3)


def make_recordings(n=10, lengths=None, sources=None, name="sounds", shared=()):
    """Clip i holds the value i / 64 throughout; `asked` notes which were read."""
    lengths = np.full(n, SIZE) if lengths is None else np.array(lengths)
    sources = [str(i) for i in range(n)] if sources is None else sources
    clips = tuple(Clip(f"{i}.wav", (i % 3,), i % 2 + 1, sources[i]) for i in range(n))
    asked = []

    def read(index):
        asked.append(index)
        return np.full(lengths[index], index / 64, np.float32)

    info = Info(name, ("a", "b", "c"), 1000, clips, shared)
    return Recordings(info, [f"sum of {name}"] * len(info.clips), lengths, read), asked


def train(recordings, indices, batch_size, **settings):
    given = {"policy": PAD, "seed": 0, "epoch": 0, **settings}
    return list(
        batches.train_batches(recordings, indices, batch_size=batch_size, **given)
    )


def evaluate(recordings, indices, batch_size, **settings):
    given = {"policy": PAD, **settings}
    return list(
        batches.eval_batches(recordings, indices, batch_size=batch_size, **given)
    )


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def uneven(name="uneven", **settings):
    """Clip i counts up from i * 1000; 0.3 to 4.5 rows long."""
    lengths = np.array([100, 30, 450, 101, 250, 99, 200, 300, 77, 310])
    recordings, _ = make_recordings(lengths=lengths, name=name)
    return dataclasses.replace(
        recordings,
        read=lambda i: np.arange(i * 1000, i * 1000 + lengths[i], dtype=np.float32),
        **settings,
    )
