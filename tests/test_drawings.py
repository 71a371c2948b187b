import pytest

from audiojax import drawings, figures
from tests import studies


@pytest.fixture
def heat_maps(monkeypatch):
    """What is given to be drawn as such."""
    drawn = []
    monkeypatch.setattr(figures, "heat_maps", lambda *given: drawn.append(given))
    return drawn


def names(found):
    return [drawing.name for drawing in drawings.drawings(found)]


def test_the_pictures_are_of_what_there_is():
    found = studies.made()
    assert names(found) == ["transfer", "similarity", "layers"]
    found["similarity"] = [row for row in found["similarity"] if "problem" in row]
    assert names(found) == ["transfer"]
    # With the unmodified network alone there is nothing to draw yet.
    for point in found["points"][1:]:
        point["scores"] = None
    assert names(found) == []


def test_heat_maps_are_means_over_folds(heat_maps):
    found = studies.made()
    found["similarity"][0]["svcca"] = [0.5, 0.3]
    drawings.drawings(found)
    (same, rows, columns), (cka, *_) = heat_maps
    assert rows == ["pretrained, before and after", "random, before and after"]
    assert tuple(columns) == ("conv1", "conv2")
    assert same["linear CKA"].tolist() == [[1.0, 0.75]] * 2
    assert same["SVCCA"].round(6).tolist() == [[0.7, 0.3], [0.9, 0.3]]
    assert same["change of weights"].tolist() == [[0.125, 0.0]] * 2
    assert cka[rows[0]].tolist() == [[1.0, 0.5], [0.25, 0.75]]


def test_the_repetition_s_measure_has_its_name(heat_maps):
    found = studies.made()
    for row in found["similarity"]:
        if "svcca" in row:
            row["cca"] = row.pop("svcca")
    drawings.drawings(found)
    assert "mean CCA" in heat_maps[0][0]
