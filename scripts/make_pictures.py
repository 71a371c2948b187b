r"""Makes the documents' pictures of an explanation, of the report and of mistakes.

python -m audiojax.main --config configs/esc10_best.py --workdir runs/esc10 \
    --config.data.source_dir=ESC10_DIR --config.sweep.seeds=0,1,2
python -m scripts.make_pictures ESC10_DIR runs/esc10 [OTHER_WORKDIR …]

Of a workdir of ESC-10 it writes docs/explanation.png, three held-out clips by
Integrated Gradients, and docs/report.png, two parts of its report in headless Chromium;
docs/confusion_esc10.png is the workdir's confusion.png. docs/mistakes_esc10.png are
the clips that the average of all workdirs takes for something else.
It needs the extra `test`, and a Chromium.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from playwright.sync_api import sync_playwright

import audiojax
from audiojax import command, ensemble, figures, mistakes, pictures, report
from audiojax.explainer import Explainer
from audiojax.mistakes import Find
from audiojax.pictures import Row
from audiojax.workdir import Workdir

DOCS = Path(__file__).resolve().parent.parent / "docs"
# Classes whose sounds are easily told by eye.
SHOWN = ("dog", "rooster", "clock_tick")
WIDTH, TOP, MISTAKES = 1100, 530, 560
COLORS = 256
COLUMNS = 5


def explanation(workdir: str, find: Find) -> None:
    """Draws of each class shown the held-out clip that is told with most certainty."""
    opened = Workdir(workdir)
    run, rate = opened.runs[0], opened.classifier.log_mel.sample_rate
    found = opened.predictions(run)
    shares = opened.task.probabilities(found.logits)
    explainer = Explainer(audiojax.load(workdir, folds=[run.fold], seeds=[run.seed]))
    rows = []
    for name in SHOWN:
        number = opened.classes.index(name)
        best = np.where(found.label == number, shares[:, number], 0).argmax()
        clip = (find(str(found.filename[best]), rate), rate)
        one = explainer.attribute(clip, name)
        rows.append(Row(name, one.image[..., 0], one.map, len(one.samples) / rate))
    title = "What the network looks at: Integrated Gradients"
    path = DOCS / "explanation.png"
    pictures.side_by_side(rows, title, explainer.classifier.log_mel, path)
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def page_parts(workdir: str, find: Find) -> None:
    """Takes pictures of the beginning of the report and of its mistakes."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        sys.exit("there is no Chromium on this machine; install one")
    parts = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        path = report.write_page([workdir], f"{folder}/report.html", find)
        browser = started.chromium.launch(
            executable_path=program, args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.goto(Path(path).as_uri())
        # The path of the workdir is of no interest.
        page.evaluate(
            "document.querySelectorAll('.facts div').forEach(row => {"
            "if (row.textContent.startsWith('Workdir')) row.remove(); })"
        )
        for place, height in (("h1", TOP), ("#w1-mistakes", MISTAKES)):
            page.set_viewport_size({"width": WIDTH, "height": height})
            page.locator(place).first.evaluate("part => part.scrollIntoView()")
            page.wait_for_timeout(1000)  # it scrolls smoothly
            parts.append(Image.open(io.BytesIO(page.screenshot())))
        browser.close()
    whole = Image.new("RGB", (WIDTH, TOP + MISTAKES))
    whole.paste(parts[0], (0, 0))
    whole.paste(parts[1], (0, TOP))
    path = DOCS / "report.png"
    _save(whole, path)


def remaining_mistakes(workdirs: Sequence[str], find: Find) -> None:
    """Draws the clips that the average takes for another class, by their class."""
    folds = ensemble.ensemble(workdirs)["folds"]
    wrong = [clip for fold in folds for clip in fold["mistakes"]]
    wrong.sort(key=lambda clip: (clip["true"], clip["said"], clip["filename"]))
    classifier = Workdir(workdirs[0]).classifier
    rows = -(-len(wrong) // COLUMNS)
    figure = Figure(figsize=(11, 1.6 * rows), layout="constrained")
    all_axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for ax in all_axes:
        ax.set_axis_off()
    for ax, clip in zip(all_axes, wrong, strict=False):
        samples = find(clip["filename"], classifier.log_mel.sample_rate)
        pixels = mistakes.image(samples, classifier)
        ax.imshow(pixels, origin="lower", aspect="auto", cmap=pictures.LEVELS)
        title = f"{clip['true']}, not {clip['said']}\n{Path(clip['filename']).stem}"
        ax.set_title(title, fontsize=8)
    path = DOCS / "mistakes_esc10.png"
    figures.save_png(figure, path)
    _save(Image.open(path).convert("RGB"), path)


def _save(picture: Image.Image, path: Path) -> None:
    """Saves it in few colors, else it is large."""
    picture.quantize(COLORS).save(path, optimize=True)
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def main(argv: Sequence[str]) -> None:
    """Makes the pictures of the workdirs named."""
    command.prepare()
    if len(argv) < 3:
        command.stop("give the folder of ESC-10's sounds, and workdirs trained on it")
    _, folder, workdir, *others = argv
    with command.one_sentence(workdir):
        find = mistakes.in_folder(folder)
        explanation(workdir, find)
        page_parts(workdir, find)
        remaining_mistakes([workdir, *others], find)


if __name__ == "__main__":
    main(sys.argv)
