import itertools
import re
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib import image
from scipy import special, stats
from sklearn import metrics

from audiojax import drawings, files, mistakes, report, study, summary
from audiojax.errors import InputError
from audiojax.task import TASKS
from audiojax.workdir import Workdir
from tests import processes, studies, test_deploy, test_mistakes
from tests.pages import CLASSES, Reader, make, page, runs_of

SINGLE = TASKS["single_label"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return make(tmp_path_factory.mktemp("report") / "one")


@pytest.fixture(scope="module")
def written(workdir):
    return page(workdir)


def test_results_per_fold_against_arithmetic(workdir, written):
    found = list(runs_of(workdir))
    singles, averages = [], []
    for fold in (1, 2):
        members = [logits for f, logits, _ in found if f == fold]
        label = np.arange(20) % 3
        right = [np.sum(logits.argmax(1) == label) for logits in members]
        mean = int(np.sum(np.mean(members, axis=0).argmax(1) == label))
        interval = stats.binomtest(mean, 20).proportion_ci(0.95, "wilson")
        clips, seeds, single, ensemble, gain = written[1].row(f"fold {fold}")
        assert clips == "20"
        assert seeds == ", ".join(f"{i}: {n / 20:.1%}" for i, n in enumerate(right))
        assert single.startswith(f"{np.mean(right) / 20:.1%} (")
        low, high = 100 * interval.low, 100 * interval.high
        assert ensemble == f"{mean / 20:.1%} ({low:.1f} to {high:.1f})"
        assert float(gain) == pytest.approx(5 * mean - 5 * np.mean(right), abs=0.05)
        singles.append(np.mean(right) / 20)
        averages.append(mean / 20)
    clips, _, single, ensemble, _ = written[1].row("mean of folds")
    assert clips == "40"
    assert single.startswith(f"{np.mean(singles):.1%} (")
    assert ensemble.startswith(f"{np.mean(averages):.1%} (")
    assert f"single {np.std(singles):.1%}, ensemble" in written[1].text


def test_scores_of_the_classes_are_scikit_learns(workdir, written):
    found = list(runs_of(workdir))
    label = np.concatenate([label for *_, label in found])
    said = np.concatenate([logits.argmax(1) for _, logits, _ in found])
    expected: Any = metrics.classification_report(
        label, said, target_names=CLASSES, output_dict=True
    )
    place = next(i for i, row in enumerate(written[1].cells) if row[0] == "class")
    for name in CLASSES:
        of = expected[name]
        values = [f"{of[key]:.3f}" for key in ("precision", "recall", "f1-score")]
        assert written[1].row(name, place) == [str(int(of["support"])), *values]


def test_the_matrix_says_what_its_numbers_count(tmp_path, workdir, written):
    counted = "40 clips \N{MULTIPLICATION SIGN} 2 seeds"
    assert f"The numbers count {counted}:" in written[1].text
    assert f"Numbers count {counted}" in written[1].text  # in the picture
    assert report.write(workdir) == workdir / "confusion.png"
    assert image.imread(workdir / "confusion.png").ndim == 3
    one = make(tmp_path / "one", seeds=(3,))
    assert "The numbers count 40 clips:" in page(one)[1].text
    shutil.rmtree(tmp_path / "one")
    results = make(tmp_path / "one") / "results.json"
    content = files.read_sealed(results, "")
    del content["runs"][0]
    files.write_sealed(results, content)
    text = page(one)[1].text
    assert "count 60 predictions: 40 clips" in text
    assert "Not finished yet, and not in this report: fold1-seed0." in text


def test_what_was_trained_is_told(written):
    for said in ("noises", "40, of 40 recordings", "tiny", "6.0 minutes", "random"):
        assert said in written[1].text
    assert "optimizer.learning_rate0.125" in written[1].text
    assert "augment.shift0.75" in written[1].text
    assert "mel_mask" not in written[1].text


def test_the_calibration_error_and_temperatures(workdir, written):
    found = list(runs_of(workdir))
    probability = special.softmax(np.concatenate([x for _, x, _ in found]), axis=1)
    label = np.concatenate([label for *_, label in found])
    given, right = probability.max(axis=1), probability.argmax(axis=1) == label
    gap = sum(
        abs(right[inside].sum() - given[inside].sum())
        for i in range(15)
        if (inside := (given > i / 15) & (given <= (i + 1) / 15)).any()
    )
    assert f"{gap / len(label):.1%} as trained" in written[1].text
    calibrated = summary.calibrated(summary.folds(Workdir(workdir)), Workdir(workdir))
    held = files.read_arrays(workdir / "fold2-seed1" / "validation.npz")
    told = float(written[1].row("fold2-seed1")[0])
    losses = [
        SINGLE.scores(held["logits"] / (told * factor), held["label"])["loss"]
        for factor in (0.9, 1, 1.1)
    ]
    assert min(losses) == losses[1]
    assert calibrated.after
    assert f"{calibrated.after.error:.1%} with a temperature" in written[1].text


def test_no_temperature_without_validation_clips(tmp_path):
    _, read = page(make(tmp_path / "w", validation=False))
    assert "No temperature was fitted" in read.text


def test_the_surest_mistakes_are_listed(workdir, written):
    rows = []
    for fold in (1, 2):
        mean = np.mean([x for f, x, _ in runs_of(workdir) if f == fold], axis=0)
        given = special.softmax(mean, axis=1)
        for i in np.flatnonzero(mean.argmax(1) != np.arange(20) % 3):
            said, true = CLASSES[mean[i].argmax()], CLASSES[i % 3]
            rows.append((-given[i].max(), f"{fold}-{i}.wav", fold, true, said))
    assert rows
    for share, clip, fold, true, said in sorted(rows)[: summary.MOST_MISTAKES]:
        assert written[1].row(clip) == [str(fold), true, said, f"{-share:.1%}"]
    assert "--sounds DIR" in written[1].text


def test_several_labels_a_clip(tmp_path):
    workdir = make(tmp_path / "w", multi=True)
    _, read = page(workdir)
    found = list(runs_of(workdir))
    label = np.concatenate([label for *_, label in found])
    logits = np.concatenate([logits for _, logits, _ in found])
    place = next(i for i, row in enumerate(read.cells) if row[0] == "class")
    for i, name in enumerate(CLASSES):
        precision = metrics.average_precision_score(label[:, i], logits[:, i])
        assert read.row(name, place)[-1] == f"{precision:.3f}"
    means = [
        np.mean(
            [
                TASKS["multi_label"].scores(logits, label)["mAP"]
                for f, logits, label in found
                if f == fold
            ]
        )
        for fold in (1, 2)
    ]
    single = read.row("mean of folds")[2]
    value, low, high = map(float, re.findall(r"[\d.]+", single))
    assert value == pytest.approx(100 * np.mean(means), abs=0.05)
    assert low < value < high
    assert "mAP by step" in read.text
    assert report.write(workdir).name == "average_precision.png"


def test_workdirs_side_by_side(tmp_path, workdir):
    other = make(tmp_path / "two", classes=("a", "b"), seeds=(0,))
    _, read = page(workdir, other, out=tmp_path / "both.html")
    first, second = read.row("1. one"), read.row("2. two")
    assert first[:5] == ["noises", "tiny", "random", "3", "40"]
    assert second[-2] == "–"  # noqa: RUF001
    assert "trained on different data" in read.text
    assert not (workdir / "both.html").exists()
    _, read = page(workdir, workdir, out=tmp_path / "both.html")
    assert "different data" not in read.text


@pytest.mark.parametrize("multi", [False, True])
def test_any_class_name_stands_in_the_page_as_it_is(tmp_path, multi):
    names = ("<b>&amp;", '"quoted" \'n', "{{ 7 * 7 }}", "caf\udce9", "a\nb", "\u72ac")
    text, read = page(make(tmp_path / "w", classes=names, multi=multi))
    assert "<b>" not in text
    for name in (*names[:3], "caf\ufffd", "a\ufffdb", "\u72ac"):
        assert read.row(name)


@pytest.mark.parametrize("count", [1, 2])
def test_the_page_is_well_made(workdir, tmp_path, count):
    text, read = page(*[workdir] * count, out=tmp_path / "page.html")
    assert len(read.ids) == len(set(read.ids))
    tags = [tag for tag, _ in read.found]
    assert "script" not in tags
    headings = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    steps = itertools.pairwise(headings)
    assert all(1 < after <= before + 1 for before, after in steps)
    assert tags.count("table") == tags.count("caption")
    for tag, values in read.found:
        assert tag != "img" or values["alt"]
        assert tag != "th" or values["scope"] in ("row", "col")
        assert tag != "svg" or values["role"] == "img"
        for name in ("aria-labelledby", "href", "src", "xlink:href"):
            place = values.get(name) or "#" + read.ids[0]
            if name == "aria-labelledby":
                assert set(place.lstrip("#").split()) <= set(read.ids)
            elif place.startswith("#"):
                assert place[1:] in read.ids
            else:
                assert place.startswith("data:")
    spaces = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink")
    assert set(re.findall(r"\w+://[^\"' )<]*", text)) <= set(spaces)


@pytest.fixture(scope="module")
def heard(trained_of, tmp_path_factory):
    """The page of a trained workdir with the sounds of its mistakes."""
    folder, made = tmp_path_factory.mktemp("heard"), trained_of("pad")
    sounds = test_mistakes.write_all_but_the_first(made, folder / "sounds")
    find = mistakes.in_folder(sounds)
    return report.write_page([made.workdir], folder / "w.html", find)


def test_mistakes_can_be_heard_and_seen(heard):
    read = Reader(heard.read_text("utf-8"))
    players = [values for tag, values in read.found if tag == "audio"]
    images = [values for tag, values in read.found if tag == "img"]
    assert read.text.count("No sound: not in ") == 1
    assert "No explanation" not in read.text
    assert len(images) == 2 * len(players) > 2
    pictures, explanations = images[::2], images[1::2]
    for player, picture, seen in zip(players, pictures, explanations, strict=True):
        name = player["aria-label"]
        assert player["src"].startswith("data:audio/flac;base64,")
        assert picture["alt"] == f"Log-mel spectrogram of {name}"
        assert re.fullmatch(rf"What spoke for \w+ in {name}", seen["alt"])
        for shown in (picture, seen):
            assert shown["src"].startswith("data:image/png;base64,")


@pytest.mark.slow
def test_the_command(workdir, tmp_path):
    out = tmp_path / "page.html"
    status, said, err = command(workdir, f"--out={out}")
    assert status == 0, err
    assert re.fullmatch(rf"report  {re.escape(str(out))}  \(0\.\d MiB\)\n", said)
    assert out.read_bytes().startswith(b"<!DOCTYPE html>")


def test_importing_it_loads_no_heavy_library():
    heavy = ("tensorflow", "torch", "clu", "librosa", "orbax")
    rooms = ("audiojax.training", "audiojax.datasets")
    assert processes.loaded(["audiojax.report"], (*heavy, *rooms)) == []


def command(*arguments):
    """The command in a process of its own: its status, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "audiojax.report", *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param(
            [],
            "no workdir given; give one that was trained, or several",
            marks=pytest.mark.slow,
        ),
        (["no_such_folder"], "no results.json, so this is not a workdir"),
    ],
)
def test_bad_arguments_end_in_one_sentence(arguments, sentence):
    status, _, err = command(*arguments)
    assert status == 1
    assert err.count("\n") == 1
    assert sentence in err


def test_a_workdir_without_a_finished_run(tmp_path):
    results = make(tmp_path / "w") / "results.json"
    content = files.read_sealed(results, "") | {"runs": []}
    files.write_sealed(results, content)
    with pytest.raises(InputError, match="no run is finished yet"):
        report.write_page([tmp_path / "w"])


def test_places_that_can_not_be_used(workdir, tmp_path):
    with pytest.raises(InputError, match="is a folder; give the name of a file"):
        report.write_page([workdir], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        report.write_page([workdir], tmp_path / "file" / "page.html")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(heard, workdir, tmp_path, scheme):
    """By axe-core's rules, contrast among them, also of what is folded away."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    both = report.write_page([workdir, workdir], tmp_path / "both.html")
    with test_deploy.browser() as shown:
        shown.emulate_media(color_scheme=scheme)
        for path in (heard, both):
            shown.goto(path.as_uri())
            shown.evaluate("document.querySelectorAll('details').forEach(d=>d.open=1)")
            found = axe.run(shown).response["violations"]
            assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found] == []


@pytest.mark.slow
def test_the_page_in_a_browser(heard):
    said, asked = [], []
    with test_deploy.browser() as shown:
        shown.on("console", lambda message: said.append(message.text))
        shown.on("pageerror", lambda error: said.append(str(error)))
        shown.on("request", lambda request: asked.append(request.url))
        for width in (1280, 360):
            shown.set_viewport_size({"width": width, "height": 800})
            shown.goto(heard.as_uri())
            wide = shown.evaluate("document.documentElement.scrollWidth")
            assert wide <= width
        player = shown.locator("audio").first
        player.evaluate("player => { player.muted = true; return player.play(); }")
        assert player.evaluate("player => player.duration") > 0
        shown.keyboard.press("Tab")
        assert shown.locator(":focus").inner_text() == "Skip to the content"
    assert said == []
    assert all(url.startswith((heard.as_uri(), "data:")) for url in asked)


def test_a_study_has_a_page_of_its_own(tmp_path):
    found = studies.made()
    files.write_sealed(tmp_path / "w" / study.TRANSFER, found)
    text, reader = page(tmp_path / "w", out=tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text("utf-8") == text
    assert reader.row("pretrained")[:3] == ["2", "85.0%", "5.0%"]
    frozen = ["2", "60.0%", "0.0%", "10.0% to 95.0%", "-25.0", "1,234"]
    assert reader.row("frozen up to conv2") == frozen
    assert reader.row("cut before conv2") == ["0", "no run yet"]
    assert text.count("<svg") == len(drawings.drawings(found)) == 3
    assert len(reader.ids) == len(set(reader.ids))


def test_a_study_is_told_alone(tmp_path, workdir):
    files.write_sealed(tmp_path / study.TRANSFER, studies.made())
    with pytest.raises(InputError, match="one of 2 workdirs is a study's"):
        report.write_page([workdir, tmp_path])
