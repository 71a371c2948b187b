import logging

import numpy as np
import pytest

from audiojax.datasets import Clip, Info
from audiojax.datasets.parts import split
from audiojax.errors import InputError


def info(num_folds=5, per_class=4):
    """Two classes; in each fold and class two clips of every recording."""
    clips = [
        Clip(
            filename=f"{fold}-{label}-{i}.wav",
            labels=(label,),
            fold=fold,
            source=f"{fold}-{label}-{i // 2}",
        )
        for fold in range(1, num_folds + 1)
        for label in range(2)
        for i in range(per_class)
    ]
    return Info("made", ("a", "b"), 22050, tuple(clips))


def of(info, indices, field):
    return [getattr(info.clips[i], field) for i in indices]


def test_without_validation_all_other_folds_are_trained_on():
    data = info()
    found = split(data, fold=2)
    assert set(of(data, found.test, "fold")) == {2}
    assert set(of(data, found.train, "fold")) == {1, 3, 4, 5}
    assert len(found.validation) == 0
    assert len(found.train) + len(found.test) == len(data.clips)


@pytest.mark.parametrize(("fold", "validation"), [(1, 2), (4, 5), (5, 1)])
def test_the_fold_after_the_test_fold_is_held_out(fold, validation):
    data = info()
    found = split(data, fold, "fold")
    assert set(of(data, found.validation, "fold")) == {validation}
    assert not {fold, validation} & set(of(data, found.train, "fold"))
    assert sorted([*found.train, *found.validation, *found.test]) == list(range(40))


@pytest.mark.parametrize("share", ["0.25", "0.5"])
def test_a_share_is_held_out_by_class_and_recording(share):
    data = info(per_class=8)
    found = split(data, fold=1, validation=share)
    assert len(found.validation) == pytest.approx(float(share) * 64, abs=4)
    labels = of(data, found.validation, "label")
    assert abs(labels.count(0) - labels.count(1)) <= 2
    parts = (found.train, found.validation, found.test)
    sources = [set(of(data, part, "source")) for part in parts]
    assert not sources[0] & sources[1]
    assert not sources[2] & (sources[0] | sources[1])
    again = split(data, fold=1, validation=share)
    np.testing.assert_array_equal(again.validation, found.validation)


def test_validation_clips_of_recordings_heard_elsewhere_are_not_used(caplog):
    """Where the publisher's own folds share a recording, the validation does not."""
    data = info()
    clips = list(data.clips)
    known = clips[0].source  # of fold 1
    there = next(i for i, clip in enumerate(clips) if clip.fold == 3)
    clips[there] = Clip(clips[there].filename, clips[there].labels, 3, known)
    data = Info("made", ("a", "b"), 22050, tuple(clips), shared_sources=(known,))
    with caplog.at_level(logging.WARNING):
        found = split(data, fold=2, validation="fold")  # fold 3
    assert there not in found.validation
    assert len(found.validation) == 7
    assert clips[there].filename in caplog.text
    assert known in of(data, found.train, "source")


@pytest.mark.parametrize(
    ("fold", "validation", "sentence"),
    [
        (9, None, "has folds 1, 2, 3, 4, 5"),
        (0, None, "names fold 0"),
        (1, "half", "give None, fold .* or a share"),
        (1, "1.5", "between 0 and 1"),
    ],
)
def test_what_cannot_be_split_is_said(fold, validation, sentence):
    with pytest.raises(InputError, match=sentence):
        split(info(), fold, validation)


def test_a_held_out_fold_needs_three():
    with pytest.raises(InputError, match="needs three folds; made has 2"):
        split(info(num_folds=2), 1, "fold")


def test_one_recording_on_both_sides_is_refused():
    data = info()
    clip = data.clips[0]
    stray = Clip("stray.wav", clip.labels, fold=3, source=clip.source)
    leaking = Info("made", ("a", "b"), 22050, (*data.clips, stray))
    with pytest.raises(InputError, match=r"stray\.wav"):
        split(leaking, fold=1)
