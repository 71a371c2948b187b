import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import image
from matplotlib.axes import Axes
from matplotlib.text import Text

from audiojax import calibration, figures


def test_confusion_matrix_shows_counts_and_accuracy(tmp_path, monkeypatch):
    drawn, titles = {}, []
    monkeypatch.setattr(
        Axes, "text", lambda _, x, y, text, **k: drawn.update({(y, x): text})
    )
    monkeypatch.setattr(Axes, "set_title", lambda _, text, **k: titles.append(text))
    label, predicted = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2, 2])
    path = tmp_path / "confusion.png"
    names = ["dog", "rain", "clock"]
    figure = figures.confusion_matrix(label, predicted, names, "5 clips")
    figures.save_png(figure, path)
    assert drawn == {(0, 0): "1", (0, 1): "1", (1, 1): "1", (2, 2): "2"}
    assert titles == ["accuracy 80.0%\nNumbers count 5 clips"]
    assert image.imread(path).ndim == 3


@pytest.mark.parametrize("classes", [2, 50])
def test_any_number_of_classes_is_drawn(tmp_path, classes):
    names = [f"class {i}" for i in range(classes)]
    label = np.arange(classes)
    figure = figures.confusion_matrix(label, label, names, "some clips")
    figures.save_png(figure, tmp_path / "confusion.png")
    height, width = image.imread(tmp_path / "confusion.png").shape[:2]
    assert height == width >= 300


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
    path = tmp_path / "average_precision.png"
    expected = {"dog": 0.25, "rain": 0.75}
    figures.save_png(figures.average_precision(expected, "30 clips"), path)
    drawn = {names[place]: width for place, width in widths.items()}
    assert drawn == expected
    assert image.imread(path).ndim == 3


def test_scores_against_the_stage_stand_at_their_stages(monkeypatch):
    drawn, levels = [], []

    def errorbar(_, x, y, deviations, **options):
        drawn.append((options["label"], list(x), list(y), list(deviations)))

    monkeypatch.setattr(Axes, "errorbar", errorbar)
    draw = Axes.axhline

    def axhline(axes, y, **options):
        levels.append(y)
        return draw(axes, y, **options)

    monkeypatch.setattr(Axes, "axhline", axhline)
    panels = {
        "frozen": {"freeze": {"b": (0.75, 0.125), "a": (0.5, 0.25)}},
        "probe": {"one": {"c": (0.25, 0.0)}, "other": {"a": (0.125, 0.0)}},
    }
    level = {"pretrained": (0.875, 0.0), "random": (0.375, 0.0)}
    figure = figures.stage_scores(panels, level, ("a", "b", "c"), "accuracy")
    assert drawn == [
        ("freeze", [0, 1], [0.5, 0.75], [0.25, 0.125]),
        ("one", [2], [0.25], [0.0]),
        ("other", [0], [0.125], [0.0]),
    ]
    assert levels == [0.875, 0.375] * 2
    assert [axes.get_title() for axes in figure.axes] == ["frozen", "probe"]
    ticks = [text.get_text() for text in figure.axes[-1].get_xticklabels()]
    assert ticks == ["a", "b", "c"]


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_heat_maps_show_every_number(monkeypatch, tmp_path, count):
    drawn = []
    monkeypatch.setattr(Axes, "text", lambda _, x, y, t, **k: drawn.append((y, x, t)))
    values = np.array([[1.0, 0.25, np.nan], [-0.02, 0.0, 1.5]])
    maps = {f"map {i}": values for i in range(count)}
    figure = figures.heat_maps(maps, ["one", "other"], ["a", "b", "c"])
    expected = [(0, 0, "1.00"), (0, 1, ".25"), (1, 0, "-0.02"), (1, 1, ".00")]
    assert drawn == [*expected, (1, 2, "1.50")] * count
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == list(maps)
    monkeypatch.undo()
    figures.save_png(figure, tmp_path / "maps.png")
    assert image.imread(tmp_path / "maps.png").ndim == 3


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
    figure = figures.confusion_matrix(label, label, list(STRANGE), "some clips")
    figures.save_png(figure, tmp_path / "confusion.png")
    assert {drawn_names[seen] for seen in STRANGE.values()} == {False}


def test_any_class_name_stands_beside_its_bar(tmp_path, drawn_names):
    figure = figures.average_precision(dict.fromkeys(STRANGE, 0.5), "some clips")
    figures.save_png(figure, tmp_path / "precision.png")
    assert {drawn_names[seen] for seen in STRANGE.values()} == {False}


def test_a_figure_in_a_page_has_names_of_its_own():
    label = np.arange(len(STRANGE))
    names = [*[*STRANGE][:-1], "<b>&amp;"]
    figure = figures.confusion_matrix(label, label, names, "8 clips")
    text = str(figures.svg(figure, "one", "A & B", "<what is seen>"))
    root = ElementTree.fromstring(text)
    ids = [name for element in root.iter() if (name := element.get("id"))]
    assert len(ids) == len(set(ids))
    assert all(name.startswith("one-") for name in ids)
    used = re.findall(r'(?:url\(#|href="#)([^)"]+)', text)
    assert set(used) <= set(ids)
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "one-title one-desc"
    told = {element.get("id"): element.text for element in root.iter()}
    assert told["one-title"] == "A & B"
    assert told["one-desc"] == "<what is seen>"
    drawn = {element.text for element in root.iter() if element.tag.endswith("text")}
    assert "<b>&amp;" in drawn
    assert figures.INK not in text


def test_learning_curves_draw_runs_and_the_mean_of_each_fold(monkeypatch):
    drawn = []
    plot = Axes.plot

    def plotting(axes, x, y, *rest, **options):
        drawn.append((list(x), list(y), options["lw"] > 1 if "lw" in options else None))
        return plot(axes, x, y, *rest, **options)

    monkeypatch.setattr(Axes, "plot", plotting)
    runs = [([1, 2, 3], [3.0, 2.0, 1.0]), ([1, 2], [1.0, 0.0])]
    curves = {"training": {1: runs}, "test": {1: runs[:1]}}
    figures.learning_curves(curves, "loss", share=False)
    assert drawn[:3] == [
        ([1, 2, 3], [3, 2, 1], False),
        ([1, 2], [1, 0], False),
        ([1, 2], [2, 1], True),
    ]
    assert drawn[3:] == [([1, 2, 3], [3, 2, 1], thick) for thick in (False, True)]


def test_reliability_draws_the_bins_that_hold_something(monkeypatch):
    drawn = []
    plot = Axes.plot

    def plotting(axes, x, y, *rest, **options):
        drawn.append((list(x), list(y)))
        return plot(axes, x, y, *rest, **options)

    monkeypatch.setattr(Axes, "plot", plotting)
    bins = calibration.reliability(np.array([0.5, 0.5, 0.9]), np.array([1, 0, 1]))
    figures.reliability(bins, None)
    assert drawn[1:] == [([0.5, 0.9], [0.5, 1.0])]
