"""A small folder of sounds in ESC-50's layout, in several formats and rates."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import soundfile

from audiojax import datasets
from audiojax.datasets import Settings

SAMPLE_RATE = 16000
# Targets as ESC-50 numbers them, whether they are in ESC-10, and the files' format.
KINDS = (
    (0, "dog", True, "wav", SAMPLE_RATE, 1),
    (12, "crackling_fire", True, "ogg", SAMPLE_RATE, 1),
    (41, "chainsaw", True, "flac", 22050, 2),
    (7, "rooster_toy", False, "wav", 8000, 1),
)


def make_rows(folds=(1, 2, 3)) -> list[dict[str, str]]:
    """One clip of each kind in each fold, as the CSV gives them."""
    return [
        {
            "filename": f"{fold}-{1000 * fold + target}-A-{target}.{suffix}",
            "fold": str(fold),
            "target": str(target),
            "category": category,
            "esc10": str(in_esc10),
            "src_file": str(1000 * fold + target),
            "take": "A",
        }
        for fold in folds
        for target, category, in_esc10, suffix, _, _ in KINDS
    ]


def write_csv(folder: Path, rows: list[dict[str, str]], **options) -> Path:
    """Writes `meta/esc50.csv`."""
    path = folder / "meta" / "esc50.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", **options) as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_sound(path: Path, seed: int, rate: int, channels: int) -> np.ndarray:
    """Writes a fifth of a second of noise and more, [T, channels]; gives it back."""
    rng = np.random.default_rng(seed)
    sound = rng.uniform(-0.5, 0.5, (rate // 5 + 10 * seed, channels))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate)
    return sound


def make_tree(folder: Path, folds=(1, 2, 3)) -> list[dict[str, str]]:
    """Writes the whole folder; returns the CSV's rows."""
    rows = make_rows(folds)
    for seed, row in enumerate(rows):
        _, _, _, _, rate, channels = KINDS[seed % len(KINDS)]
        write_sound(folder / "audio" / row["filename"], seed, rate, channels)
    write_csv(folder, rows)
    return rows


def settings(
    folder: Path, data_dir: Path, sample_rate: int = SAMPLE_RATE, **options
) -> Settings:
    """What to open a folder with."""
    return Settings(
        source_dir=str(folder),
        data_dir=str(data_dir),
        sample_rate=sample_rate,
        **options,
    )


def load(name: str, folder: Path, data_dir: Path, **options):
    """Opens the folder as the data set `name`."""
    return datasets.load(name, settings(folder, data_dir, **options))


def astuples(recordings) -> list[tuple]:
    """The clips as plain tuples."""
    return [dataclasses.astuple(clip)[:4] for clip in recordings.info.clips]
