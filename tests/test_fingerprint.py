import dataclasses
import json

import pytest

from audiojax.fingerprint import Fingerprint

CLIPS = (
    ("a.wav", ("dog",), 1, "r1", "00"),
    ("b.wav", ("cat",), 1, "r2", "01"),
    ("c.wav", ("dog",), 2, "r3", "02"),
)
DATA = Fingerprint("mine", 8000, ("cat", "dog"), CLIPS)


def changed(index, **fields):
    """The data with one clip that differs."""
    names = ("filename", "labels", "fold", "source", "digest")
    clip = dict(zip(names, CLIPS[index], strict=True)) | fields
    clips = (*CLIPS[:index], tuple(clip.values()), *CLIPS[index + 1 :])
    return dataclasses.replace(DATA, clips=clips)


def test_json_gives_it_back():
    again = Fingerprint.from_json(json.loads(json.dumps(DATA.to_json())))
    assert again == DATA
    assert again.sha256 == DATA.sha256


def test_the_same_data_do_not_differ():
    assert DATA.differs(dataclasses.replace(DATA)) == ""


@pytest.mark.parametrize(
    ("other", "phrase"),
    [
        (dataclasses.replace(DATA, name="yours"), "its name is 'yours', there 'mine'"),
        (
            dataclasses.replace(DATA, sample_rate=16000),
            "its sample_rate is 16000, there 8000",
        ),
        (
            dataclasses.replace(DATA, classes=("cat", "wolf")),
            "of the classes it lacks dog and adds wolf",
        ),
        (
            dataclasses.replace(DATA, classes=("dog", "cat")),
            "of the classes it has another order",
        ),
        (dataclasses.replace(DATA, clips=CLIPS[1:]), "of the clips it lacks a.wav"),
        (changed(0, filename="z.wav"), "of the clips it lacks a.wav and adds z.wav"),
        (changed(1, labels=("dog",)), "in another class: b.wav is dog, there cat"),
        (changed(1, labels=()), "in another class: b.wav is none, there cat"),
        (changed(2, fold=1), "in another fold: c.wav is 1, there 2"),
        (changed(2, source="r1"), "in another recording: c.wav is r1, there r3"),
        (changed(0, digest="ff"), "other sounds under the same names: a.wav"),
        (
            dataclasses.replace(DATA, clips=CLIPS[::-1]),
            "the same clips in another order",
        ),
    ],
)
def test_what_differs_is_named_and_changes_the_sum(other, phrase):
    assert other.differs(DATA) == phrase
    assert other.sha256 != DATA.sha256


def test_at_another_rate_sounds_are_not_compared():
    assert changed(0, digest="ff").other_sounds(DATA) == ["a.wav"]
    other = dataclasses.replace(changed(0, digest="ff"), sample_rate=16000)
    assert other.other_sounds(DATA) == []
