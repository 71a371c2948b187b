"""What a page holds of mistakes: sounds, pictures, and what was looked at."""

import base64
import io
import shutil

import numpy as np
import pytest
import soundfile
from matplotlib import image

import audiojax
from audiojax import mistakes, summary
from audiojax.errors import InputError
from audiojax.workdir import Workdir
from tests import pages, trained


def wrong_of(path):
    """A workdir, and its mistakes."""
    opened = Workdir(path)
    return opened, summary.mistakes(summary.folds(opened), opened)


def write_all_but_the_first(made, folder):
    """The sounds of a trained workdir, save for that of its surest mistake."""
    _, (first, *others) = wrong_of(made.workdir)
    assert len(others) > 1
    folder.mkdir()
    for i, clip in enumerate(made.recordings.info.clips):
        if clip.filename != first.filename:
            samples = made.recordings.audio(i)
            soundfile.write(folder / clip.filename, samples, trained.RATE, format="WAV")
    return folder


def content(uri, kind):
    start = f"data:{kind};base64,"
    assert uri.startswith(start)
    return io.BytesIO(base64.b64decode(uri.removeprefix(start)))


@pytest.fixture(scope="module")
def made(trained_of, tmp_path_factory):
    """A trained workdir of two seeds, and the folder of its sounds."""
    found = trained_of("pad")
    folder = tmp_path_factory.mktemp("mistakes") / "sounds"
    return found, write_all_but_the_first(found, folder)


def test_they_can_be_heard_and_seen(made):
    found, folder = made
    opened, wrong = wrong_of(found.workdir)
    rows = mistakes.shown(wrong, opened, mistakes.in_folder(folder))
    assert [row["filename"] for row in rows] == [m.filename for m in wrong]
    assert rows[0]["problem"] == f"not in {folder}"
    assert rows[0]["sound"] is rows[0]["picture"] is rows[0]["explanation"] is None
    assert any(row["sound"] for row in rows)
    for row in rows[1:]:
        samples, rate = soundfile.read(
            content(row["sound"], "audio/flac"), dtype="int16"
        )
        stored, _ = soundfile.read(folder / row["filename"], dtype="int16")
        assert rate == trained.RATE
        np.testing.assert_array_equal(samples, stored)
        for name in ("picture", "explanation"):
            pixels = image.imread(content(row[name], "image/png"))
            assert pixels.shape[:2] == (16, 16)
        assert row["problem"] is row["unexplained"] is None


def test_what_is_explained_is_the_class_said_by_the_average_of_the_seeds(
    made, monkeypatch
):
    found, folder = made
    opened, wrong = wrong_of(found.workdir)
    asked = []

    def explain(self, clip, target):
        asked.append((len(self._programs[0].runs), target))
        raise InputError("as it is")

    monkeypatch.setattr(mistakes.Explainer, "attribute", explain)
    rows = mistakes.shown(wrong, opened, mistakes.in_folder(folder))
    assert asked == [(2, mistake.said) for mistake in wrong[1:]]
    assert {row["unexplained"] for row in rows[1:]} == {"as it is"}
    asked.clear()
    mistakes.shown(wrong, opened, mistakes.in_folder(folder), explained=False)
    assert asked == []


def test_where_the_checkpoints_are_gone_only_the_explanation_is(made, tmp_path):
    found, folder = made
    shutil.copytree(found.workdir, tmp_path / "w")
    shutil.rmtree(tmp_path / "w" / "fold1-seed1" / "checkpoints")
    opened, wrong = wrong_of(tmp_path / "w")
    (row,) = mistakes.shown(wrong[1:2], opened, mistakes.in_folder(folder))
    assert row["sound"]
    assert row["explanation"] is None
    assert "fold1-seed1" in row["unexplained"]


def test_not_a_class_is_explained_by_that_class(tmp_path):
    _, wrong = wrong_of(pages.make(tmp_path / "w", multi=True))
    missed = [m for m in wrong if m.said.startswith("not ")]
    assert missed
    for mistake in wrong:
        assert mistake.said.removeprefix("not ") == mistake.target


def test_the_folder_of_the_sounds(tmp_path):
    (tmp_path / "audio").mkdir()
    steps = np.arange(-80, 80, dtype=np.int16)
    soundfile.write(tmp_path / "audio" / "a.wav", steps, 8000)
    find = mistakes.in_folder(tmp_path)
    np.testing.assert_array_equal(find("a.wav", 8000), steps)
    with pytest.raises(InputError, match=f"not in {tmp_path}"):
        find("b.wav", 8000)
    with pytest.raises(InputError, match=r"--sounds is .*, no folder"):
        mistakes.in_folder(tmp_path / "audio" / "a.wav")


def test_what_it_says_of_an_explanation_is_what_the_explainer_does(made):
    """The class of the mistake, in the row that the whole is of."""
    found, _ = made
    _, wrong = wrong_of(found.workdir)
    model = audiojax.load(found.workdir)
    place = {clip.filename: i for i, clip in enumerate(found.recordings.info.clips)}
    mistake = wrong[1]
    clip = (found.recordings.audio(place[mistake.filename]), trained.RATE)
    explained = mistakes.Explainer(model, mistakes.METHOD).attribute(clip, mistake.said)
    assert explained.probability == pytest.approx(mistake.probability, abs=1e-4)
    assert explained.predicted == mistake.said
