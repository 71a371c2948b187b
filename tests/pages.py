"""Workdirs made without training, and what is asked of the pages about them."""

import html.parser

import numpy as np

from audiojax import files, report
from audiojax.fingerprint import Fingerprint
from audiojax.workdir import Entry, Run

CLASSES = ("dog", "rain", "<script>alert('x')</script>")


def make(
    folder, *, folds=(1, 2), seeds=(0, 1), multi=False, classes=CLASSES, validation=True
):
    """A workdir as a sweep leaves it, but for checkpoints; predictions are drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    entries, clips = [], []
    for fold in folds:
        names = [f"{fold}-{i}.wav" for i in range(20)]
        number = np.arange(20) % len(classes)
        own = np.eye(len(classes))[number]
        label = (np.roll(own, 1, axis=1) + own > 0).astype(np.float32)
        label = label if multi else number
        clips += [
            (name, (classes[n],), fold, name, "")
            for name, n in zip(names, number, strict=True)
        ]
        for seed in seeds:
            run = Run(fold, seed)
            random = np.random.default_rng([fold, seed])
            for name in ("predictions", "validation")[: 1 + validation]:
                logits = 4 * own + random.normal(scale=3, size=own.shape)
                arrays = {"logits": logits.astype(np.float32), "label": label}
                arrays["filename"] = np.array(names)
                files.write_arrays(folder / run.name / f"{name}.npz", arrays)
            metric = "mAP" if multi else "accuracy"
            lines = (
                f'{{"step": {step}, "train_loss": {3 / step}, "train_accuracy": 0.5, '
                f'"test_loss": {4 / step}, "test_{metric}": 0.25}}\n'
                for step in (2, 4)
            )
            (folder / run.name / "metrics.jsonl").write_text("".join(lines))
            entries.append(Entry(run, 10, 0, 90.0, {}).to_json())
    config = {
        "data": {"name": "noises", "clip_mode": "pad"},
        "model": {"name": "tiny", "pretrained": None},
        "optimizer": {"learning_rate": 0.125},
        "augment": {"shift": 0.75, "mel_mask": 0.0},
        "epochs": 3,
        "sweep": {"folds": list(folds), "seeds": list(seeds)},
    }
    results = {"task": "multi_label" if multi else "single_label", "config": config}
    results |= {"classes": list(classes), "runs": entries}
    files.write_sealed(folder / "results.json", results)
    data = Fingerprint("noises", 8000, tuple(classes), tuple(clips))
    files.write_sealed(folder / "data.json", data.to_json())
    return folder


class Reader(html.parser.HTMLParser):
    """What is asked of a page: tags in balance, names, links, texts."""

    EMPTY = ("meta", "link", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.cells, self.ids = [], [], [], []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.found.append((tag, values))
        self.ids += [values["id"]] if "id" in values else []
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.cells[-1][-1] += data

    def row(self, name, after=0):
        """The cells of the first row of that name, from the row `after` on."""
        return next(row for row in self.cells[after:] if row[0] == name)[1:]


def page(*workdirs, **options):
    path = report.write_page(workdirs, **options)
    text = path.read_text("utf-8")
    return text, Reader(text)


def runs_of(workdir):
    """Of each run the fold, logits and labels, by fold and seed."""
    for path in sorted(workdir.glob("fold*/predictions.npz")):
        arrays = files.read_arrays(path)
        yield int(path.parent.name[4]), arrays["logits"], arrays["label"]
