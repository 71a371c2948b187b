import numpy as np
import pytest
from matplotlib import image
from matplotlib.axes import Axes
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
    drawn = {}
    bars = Axes.barh

    def barh(axes, names, values, **options):
        drawn.update(zip(names, values, strict=True))
        return bars(axes, names, values, **options)

    monkeypatch.setattr(Axes, "barh", barh)
    random = np.random.default_rng(0)
    label = (random.random((30, 3)) < [0.5, 0.3, 0.0]).astype(np.float32)
    logits = random.normal(size=(30, 3))
    path = tmp_path / "average_precision.png"
    report.average_precision(label, logits, ["dog", "rain", "clock"], path)
    expected = [
        metrics.average_precision_score(label[:, i], logits[:, i]) for i in range(2)
    ]
    assert drawn == {"dog": expected[0], "rain": expected[1]}
    assert image.imread(path).ndim == 3
