import numpy as np
import pytest

from audiojax.datasets import Clip, Info, checks
from audiojax.errors import InputError


def make_info(clips, classes=("cat", "dog"), **more):
    """Clips given as (label or labels, fold, source)."""
    clips = tuple(
        Clip(f"{i}.wav", labels if isinstance(labels, tuple) else (labels,), *rest)
        for i, (labels, *rest) in enumerate(clips)
    )
    return Info("sounds", tuple(classes), 1000, clips, **more)


APART = [(0, 1, "a"), (1, 1, "b"), (0, 2, "c"), (1, 2, "d")]
MIXED = [(0, 1, "a"), (1, 1, "b"), (0, 2, "a"), (1, 2, "d")]


def test_a_sound_data_set_passes(caplog):
    info = make_info(APART)
    checks.check_info(info)
    checks.check_split(info, [0, 1], [2, 3])
    checks.check_copies(info, ["p", "q", "r", "s"])
    checks.check_random(make_info(APART, official_folds=False))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("clips", "classes", "sentence"),
    [
        ([], ("cat", "dog"), "has no clips"),
        ([(0, 1, "a")], ("cat", "dog"), r"one clip only \(0\.wav\)"),
        ([(0, 1, "a"), (0, 2, "b")], ("cat",), "one class only .'cat'.; .* folder abo"),
        (APART, ("dog", "Dog"), "case or blanks: 'dog' and 'Dog'; give them one name"),
        (APART, ("dog", " dog "), "'dog' and ' dog '"),
        (APART, ("big dog", "big  Dog"), "'big dog' and 'big  Dog'"),
        (APART, ("caf\u00e9", "cafe\u0301"), "differ only in case or blanks"),
        (APART, ("cat", " "), "a class without a name: ' '"),
        (
            MIXED,
            ("cat", "dog"),
            r"in several folds.*: 0\.wav and 2\.wav; put the clips",
        ),
    ],
)
def test_what_a_classifier_can_t_be_trained_on(clips, classes, sentence):
    with pytest.raises(InputError, match=sentence):
        checks.check_info(make_info(clips, classes))


def test_one_class_is_enough_where_a_clip_may_have_none():
    clips = [((0,), 1, "a"), ((), 1, "b"), ((0,), 2, "c")]
    checks.check_info(make_info(clips, ["siren"], multi_label=True))


def test_leaks_can_be_allowed_and_are_still_told(caplog):
    info = make_info(MIXED)
    checks.check_info(info, allow_leaks=True)
    checks.check_split(info, [0, 1], [2, 3], allow_leaks=True)
    checks.check_copies(info, ["p", "q", "r", "q"], allow_leaks=True)
    assert len(caplog.messages) == 3
    for message, pair in zip(caplog.messages, ("0 2", "0 2", "1 3"), strict=True):
        first, second = pair.split()
        assert f"{first}.wav and {second}.wav; going on as it is allowed" in message


def test_the_publisher_s_own_shared_recordings_pass():
    info = make_info(MIXED, shared_sources=("a",))
    checks.check_info(info)
    checks.check_random(make_info(APART, official_folds=False))


SOURCES = ["x", "y", "x", "z", "y", "w", "v", "u", "t", "s"]


def ten(**more):
    return make_info(
        [(i % 2, i % 2 + 1, source) for i, source in enumerate(SOURCES)], **more
    )


def test_a_recording_on_both_sides_is_refused():
    info = ten()
    checks.check_disjoint(info, [0, 2, 3], [1, 4, 5])
    with pytest.raises(InputError) as error:
        checks.check_disjoint(info, [0, 1, 3], [2, 4, 5])
    assert "2 source recordings are on both sides" in str(error.value)
    assert "0.wav and 2.wav; 1.wav and 4.wav" in str(error.value)
    assert "config.data.allow_leaks=True" in str(error.value)
    with pytest.raises(InputError, match=r"3\.wav and 3\.wav"):
        checks.check_disjoint(info, [3], [3])


def test_recordings_that_the_publisher_shares_are_warned_of(caplog):
    info = ten(shared_sources=("x",))
    checks.check_disjoint(info, [0], [2])
    assert "share 1 recordings" in caplog.text
    with pytest.raises(InputError, match="1 source recordings"):
        checks.check_disjoint(info, [0, 1], [2, 4])


def test_a_class_that_is_never_trained_or_never_tested(caplog):
    info = make_info([(0, 1, "a"), (1, 1, "b"), (0, 2, "c"), (0, 3, "d")])
    with pytest.raises(InputError, match="'dog' would be tested and never trained"):
        checks.check_split(info, [2, 3], [0, 1])
    checks.check_split(info, [0, 1, 2], [3])
    assert "no test clip of 'dog'; the scores do not tell of it" in caplog.text


def test_a_class_in_one_fold_is_warned_of(caplog):
    checks.check_info(make_info([(0, 1, "a"), (1, 1, "b"), (0, 2, "c")]))
    assert "all clips of a class in one fold: 'dog' in 1; where that" in caplog.text


def test_the_same_file_in_two_folds_is_refused():
    info = make_info(APART)
    checks.check_copies(info, ["p", "p", "r", "s"])  # in one fold it does no harm
    with pytest.raises(InputError) as error:
        checks.check_copies(info, ["p", "q", "p", "q"])
    assert "2 sounds are in several folds" in str(error.value)
    assert "0.wav and 2.wav; 1.wav and 3.wav; delete the copies" in str(error.value)


def test_random_folds_are_refused_where_they_lie(caplog):
    with pytest.raises(InputError, match="comes with folds, and results on others"):
        checks.check_random(make_info(APART))
    sliced = make_info(MIXED, official_folds=False)
    with pytest.raises(InputError, match=r"1 recordings .* 0\.wav and 2\.wav; set con"):
        checks.check_random(sliced)
    checks.check_random(make_info(MIXED), allow_leaks=True)
    assert len(caplog.messages) == 2


def test_the_summary_counts_every_clip():
    info = make_info(
        [((0,), 1, "a"), ((0, 1), 1, "b"), ((), 2, "c"), ((1,), 2, "d")],
        ["cat", "a very long name"],
        multi_label=True,
        official_folds=False,
    )
    text = checks.summary(info, np.array([3_600_000, 1_800_000, 500, 900_000]))
    assert text.splitlines() == [
        "sounds: 4 clips of 2 classes, 1.750 hours, clips of 0.500 to 3600.000 s",
        "clips by fold: 1: 2, 2: 2 (made here)",
        "  class               clips     hours",
        "  cat                     2     1.500",
        "  a very long name        2     0.750",
        "  (none)                  1",
    ]


def test_the_summary_keeps_its_lines_with_any_name():
    info = make_info(APART, ["a\nb", "caf\udce9"])
    *_, first, second = checks.summary(info, np.full(4, 1000)).splitlines()
    assert first.split() == ["a\\nb", "2", "0.001"]
    assert second.split() == ["caf\\udce9", "2", "0.001"]
    assert len(first) == len(second)
