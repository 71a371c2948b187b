"""Pictures of maps, and the names in them."""

import io

import numpy as np
from matplotlib import image
from matplotlib.figure import Figure

from audiojax import pictures
from audiojax.features import LogMel

LOG_MEL = LogMel(sample_rate=8000, n_fft=800, n_mels=16)


def size_of(path):
    """Width and height of a PNG, by its header."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return tuple(int.from_bytes(content[i : i + 4], "big") for i in (16, 20))


def test_any_name_can_be_drawn(tmp_path):
    row = pictures.Row("a\n\udcff$x_", np.zeros((16, 4)), np.zeros((16, 4)), 1.0)
    pictures.side_by_side([row, row], "$", LOG_MEL, tmp_path / "x.png")
    assert size_of(tmp_path / "x.png") == (1100, 640)


def test_what_speaks_for_a_class_is_orange_over_gray():
    """Low tones are below, and what speaks against it is gray."""
    levels = np.linspace(-3, 5, 64).reshape(8, 8)
    found = np.zeros((8, 8))
    found[1, 2], found[6, 6] = 4, -4
    pixels = image.imread(io.BytesIO(pictures.overlay(levels, found)))[::-1, :, :3]
    gray = (levels + 3) / 8
    expected = np.repeat(gray[..., None], 3, axis=-1)
    # Of its own orange a strong pixel has seven tenths.
    expected[1, 2] = 0.3 * gray[1, 2] + 0.7 * np.array([1, 0.55, 0])
    np.testing.assert_allclose(pixels, expected, atol=1 / 255)
    pixels = image.imread(
        io.BytesIO(pictures.overlay(np.zeros((4, 4)), -levels[:4, :4]))
    )
    assert pixels.shape[:2] == (4, 4)
    brightness = image.imread(io.BytesIO(pictures.plain(levels)))[..., :3].sum(axis=-1)
    assert brightness[0, -1] == brightness.max()
    assert brightness[-1, 0] == brightness.min()


def test_axes_and_colors(tmp_path, monkeypatch):
    """Seconds and hertz; the attribution's colors are even around zero."""
    drawn = []
    monkeypatch.setattr(pictures, "save_png", lambda figure, path: drawn.append(figure))
    attribution = np.linspace(-1, 3, 64).reshape(16, 4)
    row = pictures.Row("a", np.ones((16, 4)), attribution, 2.0)
    pictures.side_by_side([row], "all", LOG_MEL, tmp_path / "x.png")
    (figure,) = drawn
    assert isinstance(figure, Figure)
    left, right = figure.axes[:2]
    assert left.get_xlim() == right.get_xlim() == (0, 2)
    low, high = right.images[0].get_clim()
    assert low == -high
    assert 2.9 < high <= 3
    assert [text.get_text() for text in left.get_yticklabels()] == [
        *("200", "500", "1000", "2000"),
    ]
    # Row i is the band whose triangle peaks there: 1000 Hz is 1000 mel of 2146.
    top = 2595 * np.log10(1 + 4000 / 700)
    place = (2595 * np.log10(1 + 1000 / 700)) / top * 17 - 1
    np.testing.assert_allclose(left.get_yticks()[2], place, atol=0.05)
