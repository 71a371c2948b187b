import csv
import json

import numpy as np
import pytest

from audiojax import tables
from audiojax.predictor import Prediction
from audiojax.tables import Choice, Told
from audiojax.task import TASKS

CLASSES = ("dog", "rain", "siren")
SINGLE, MULTI = TASKS["single_label"], TASKS["multi_label"]


def told(windows, seconds=None, length=2.0, hop=1.0, name="a.wav"):
    """A sound whose windows have these probabilities; the whole has the first's."""
    windows = np.array(windows, float)
    start = hop * np.arange(len(windows))
    seconds = seconds or start[-1] + length
    nothing = np.zeros((len(windows), 0))
    found = Prediction(
        seconds, windows[0], nothing[0], start, start + length, windows, nothing
    )
    return Told(name, found, windows[0], windows)


def choice(top=3, threshold=0.0, among=CLASSES):
    return Choice(CLASSES, among, top, threshold)


def test_the_most_probable_are_listed():
    shares = np.array([0.1, 0.6, 0.3])
    assert choice(2).of(shares) == [("rain", 0.6), ("siren", 0.3)]
    assert choice(threshold=0.3).of(shares) == [("rain", 0.6), ("siren", 0.3)]
    assert choice(threshold=0.7).of(shares) == []
    assert choice(among=("siren", "dog")).of(shares) == [("siren", 0.3), ("dog", 0.1)]


def test_probabilities_are_those_of_the_task():
    found = told([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]]).found
    several = Told.by(MULTI, "a", found)
    np.testing.assert_allclose(several.whole, 1 / (1 + np.exp([0.0, -1.0, -2.0])))
    one = Told.by(SINGLE, "a", found)
    np.testing.assert_allclose(one.windows.sum(axis=1), 1)


def test_a_short_sound_is_one_line():
    assert tables.table(told([[0.1, 0.6, 0.3]]), choice(2)) == (
        "a.wav  rain   60.0%  siren  30.0%"
    )
    nothing = tables.table(told([[0.1, 0.6, 0.3]]), choice(threshold=0.9))
    assert nothing == "a.wav  nothing above the threshold"


def test_windows_of_a_long_sound_have_lines_of_their_own():
    lines = tables.table(told([[0, 1, 0], [1, 0, 0]]), choice(1)).splitlines()
    assert lines == [
        "a.wav  rain  100.0%",
        "      0.00 to       2.00 s  rain  100.0%",
        "      1.00 to       3.00 s  dog   100.0%",
    ]


def test_csv_is_read_back():
    sound = told([[0.1, 0.6, 0.3], [0.5, 0.25, 0.25]], name='a "b", c.wav')
    header, text = tables.FORMATS["csv"]
    rows = list(csv.DictReader([header, *text(sound, choice(2)).splitlines()]))
    assert {row["file"] for row in rows} == {'a "b", c.wav'}
    assert [row["part"] for row in rows] == ["whole"] * 2 + ["window"] * 4
    first, *_, last = rows
    assert (first["start"], first["end"]) == ("0.000", "3.000")
    assert (first["class"], float(first["probability"])) == ("rain", 0.6)
    assert (last["start"], last["end"], last["rank"]) == ("1.000", "3.000", "2")


def test_json_is_read_back():
    sound = told([[0.1, 0.6, 0.3], [0.5, 0.25, 0.25]], name="caf\udce9\n.wav")
    _, text = tables.FORMATS["jsonl"]
    (line,) = text(sound, choice(1)).splitlines()
    assert json.loads(line) == {
        "file": "caf\udce9\n.wav",
        "seconds": 3.0,
        "classes": [{"class": "rain", "probability": 0.6}],
        "windows": [
            {
                "start": 0.0,
                "end": 2.0,
                "classes": [{"class": "rain", "probability": 0.6}],
            },
            {
                "start": 1.0,
                "end": 3.0,
                "classes": [{"class": "dog", "probability": 0.5}],
            },
        ],
    }
    short = json.loads(text(told([[0.1, 0.6, 0.3]]), choice(1)))
    assert short["windows"] == []


def test_a_label_track_joins_windows_of_a_class():
    """Windows of two seconds at 0, 1, 2 and 3 meet at 1.5, 2.5 and 3.5 seconds."""
    dog, rain = [0.8, 0.1, 0.1], [0.1, 0.6, 0.3]
    sound = told([dog, dog, rain, dog])
    assert tables.label_track(sound, choice(), SINGLE) == (
        "0.000000\t2.500000\tdog\n2.500000\t3.500000\train\n3.500000\t5.000000\tdog\n"
    )
    # What is below the threshold is no label.
    sure = tables.label_track(sound, choice(threshold=0.7), SINGLE)
    assert sure == "0.000000\t2.500000\tdog\n3.500000\t5.000000\tdog\n"


def test_several_classes_are_labeled_together():
    sound = told([[0.9, 0.6, 0.1], [0.9, 0.2, 0.4], [0.3, 0.5, 0.4]])
    assert tables.label_track(sound, choice(1), MULTI) == (
        "0.000000\t1.500000\train\n0.000000\t2.500000\tdog\n2.500000\t4.000000\train\n"
    )
    low = tables.label_track(sound, choice(threshold=0.4), MULTI)
    assert "1.500000\t4.000000\tsiren\n" in low


def test_a_short_sound_is_labeled_as_a_whole():
    sound = told([[0.1, 0.6, 0.3]], seconds=0.7)
    assert tables.label_track(sound, choice(), SINGLE) == "0.000000\t0.700000\train\n"


def test_names_of_classes_stay_on_their_line():
    sound = told([[0.1, 0.6, 0.3]])
    odd = Choice(("a", "b\t\nc", "d"), ("a", "b\t\nc", "d"), 3)
    assert tables.label_track(sound, odd, SINGLE).splitlines()[0].endswith("\tb c")


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], []), ([0, 0], []), ([1, 1], [(0, 1)]), ([1, 0, 1, 1], [(0, 0), (2, 3)])],
)
def test_stretches(values, expected):
    assert tables.stretches([bool(value) for value in values]) == expected
