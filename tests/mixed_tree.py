"""Class folders of sounds in four formats, at four rates, of different lengths.

python -m tests.mixed_tree ESC10_DIR FOLDER [TEST_FOLD]

rearranges ESC-10 so: as CLASS/FILE, or with a TEST_FOLD as {train,test}/CLASS/FILE, the
same split as `--config.sweep.folds=TEST_FOLD,` makes in ESC-10's own layout.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr

FORMATS = ("wav", "flac", "ogg", "mp3")
RATES = (44100, 48000, 32000, 22050)


def kind(n: int) -> tuple[str, int]:
    """Format and rate of the n-th file: all sixteen pairs take turns."""
    return FORMATS[n % 4], RATES[n // 4 % 4]


def make(folder: Path, classes=("cat", "dog"), clips=6, seconds=0.1) -> list[str]:
    """Writes a few short noises a class; returns their names from `folder`."""
    names = []
    for label, name in enumerate(classes):
        for n in range(clips):
            suffix, rate = kind(n + label)
            path = folder / name / f"{n}.{suffix}"
            write(path, seed=100 * label + n, seconds=seconds, rate=rate)
            names.append(f"{name}/{path.name}")
    return names


def write(path: Path, seed=0, seconds=0.1, rate=16000, **options) -> None:
    """Writes noise of that length, in the format of the path's suffix."""
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise, rate, **options)


def rearrange(esc10_dir: Path, folder: Path, test_fold: int | None = None) -> None:
    """Writes ESC-10 as class folders, without the zeros that fill its clips up."""
    with (esc10_dir / "meta" / "esc50.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["esc10"] == "True"]
    rows.sort(key=lambda row: (row["category"], row["filename"]))
    for n, row in enumerate(rows):
        suffix, rate = kind(n)
        name = Path(row["category"], row["filename"]).with_suffix(f".{suffix}")
        if test_fold is not None:
            name = Path("test" if int(row["fold"]) == test_fold else "train", name)
        sound, own_rate = soundfile.read(esc10_dir / "audio" / row["filename"])
        sound = sound[: np.flatnonzero(sound)[-1] + 1]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        resampled = soxr.resample(sound, own_rate, rate)
        soundfile.write(folder / name, resampled.clip(-1, 1), rate)


if __name__ == "__main__":
    rearrange(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
