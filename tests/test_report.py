import numpy as np
import pytest
from matplotlib import image
from matplotlib.axes import Axes
from matplotlib.text import Text
from sklearn import metrics

from audiojax import files, report
from audiojax.workdir import Entry, Run


def test_confusion_matrix_shows_counts_and_accuracy(tmp_path, monkeypatch):
    drawn, titles = {}, []
    monkeypatch.setattr(
        Axes, "text", lambda _, x, y, text, **k: drawn.update({(y, x): text})
    )
    monkeypatch.setattr(Axes, "set_title", lambda _, text: titles.append(text))
    label, predicted = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2, 2])
    path = tmp_path / "confusion.png"
    report.confusion_matrix(label, predicted, ["dog", "rain", "clock"], path)
    assert drawn == {(0, 0): "1", (0, 1): "1", (1, 1): "1", (2, 2): "2"}
    assert titles == ["accuracy 80.0% of 5 clips"]
    assert image.imread(path).ndim == 3


@pytest.mark.parametrize("classes", [2, 50])
def test_any_number_of_classes_is_drawn(tmp_path, classes):
    names = [f"class {i}" for i in range(classes)]
    label = np.arange(classes)
    report.confusion_matrix(label, label, names, tmp_path / "confusion.png")
    height, width = image.imread(tmp_path / "confusion.png").shape[:2]
    assert height == width >= 300


def test_all_runs_of_a_workdir_are_counted(tmp_path, monkeypatch):
    runs = {"fold1-seed0": ([0, 1], [0, 0]), "fold2-seed0": ([1, 1], [1, 0])}
    for name, (label, predicted) in runs.items():
        logits = np.eye(2, dtype=np.float32)[predicted]
        arrays = {"label": np.array(label), "logits": logits}
        arrays["filename"] = np.array([f"{name}-{i}.wav" for i in range(len(label))])
        files.write_arrays(tmp_path / name / "predictions.npz", arrays)
    files.write_json(
        tmp_path / "results.json",
        {
            "task": "single_label",
            "classes": ["dog", "rain"],
            "runs": [
                Entry(Run(int(name[4]), 0), 10, 0, 1.5, {}).to_json() for name in runs
            ],
            "config": {
                "model": {"name": "tiny"},
                "sweep": {"folds": [1, 2], "seeds": [0]},
            },
        },
    )
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda _, text: titles.append(text))
    report.write(tmp_path)
    assert titles == ["accuracy 50.0% of 4 clips"]
    assert (tmp_path / "confusion.png").exists()


def test_average_precision_shows_the_classes_that_occur(tmp_path, monkeypatch):
    widths, names = {}, {}
    bars, ticks = Axes.barh, Axes.set_yticks

    def barh(axes, places, values, **options):
        widths.update(zip(places, values, strict=True))
        return bars(axes, places, values, **options)

    def set_yticks(axes, places, labels, **options):
        names.update(zip(places, labels, strict=True))
        return ticks(axes, places, labels, **options)

    monkeypatch.setattr(Axes, "barh", barh)
    monkeypatch.setattr(Axes, "set_yticks", set_yticks)
    random = np.random.default_rng(0)
    label = (random.random((30, 3)) < [0.5, 0.3, 0.0]).astype(np.float32)
    logits = random.normal(size=(30, 3))
    path = tmp_path / "average_precision.png"
    report.average_precision(label, logits, ["dog", "rain", "clock"], path)
    expected = [
        metrics.average_precision_score(label[:, i], logits[:, i]) for i in range(2)
    ]
    drawn = {names[place]: width for place, width in widths.items()}
    assert drawn == {"dog": expected[0], "rain": expected[1]}
    assert image.imread(path).ndim == 3


# Names of classes, as folders may have them, and what is to be seen of each.
STRANGE = {
    "$x^2$": "$x^2$",
    "price $5": "price $5",
    r"back\slash \frac{": r"back\slash \frac{",
    "\u05e9\u05dc\u05d5\u05dd": "\u05e9\u05dc\u05d5\u05dd",  # Hebrew
    "\u0645\u0631\u062d\u0628\u0627": "\u0645\u0631\u062d\u0628\u0627",  # Arabic
    "\u72ac": "\u72ac",  # Chinese, which the font of matplotlib lacks
    "caf\udce9": "caf\ufffd",  # a byte that is no UTF-8
    "a\nb": "a\ufffdb",
}


@pytest.fixture
def drawn_names(monkeypatch):
    """The texts that are drawn, and whether each is read as mathematics."""
    drawn = {}
    draw = Text.draw

    def drawing(self, *arguments, **options):
        drawn[self.get_text()] = self.get_parse_math()
        return draw(self, *arguments, **options)

    monkeypatch.setattr(Text, "draw", drawing)
    return drawn


def test_any_class_name_is_drawn_as_it_is(tmp_path, drawn_names):
    label = np.arange(len(STRANGE))
    report.confusion_matrix(label, label, list(STRANGE), tmp_path / "confusion.png")
    assert {drawn_names[seen] for seen in STRANGE.values()} == {False}


def test_any_class_name_stands_beside_its_bar(tmp_path, drawn_names):
    label = np.eye(len(STRANGE))
    report.average_precision(label, label, list(STRANGE), tmp_path / "precision.png")
    assert {drawn_names[seen] for seen in STRANGE.values()} == {False}
