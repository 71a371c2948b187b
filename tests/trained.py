"""Small trained workdirs, of noises of many lengths, for what uses them."""

import dataclasses

import numpy as np

from audiojax.datasets import Recordings, from_arrays
from audiojax.training import sweep
from tests import tiny

RATE = 8000
ROW = RATE // 2
# From a twentieth of a row to nine of them, those around whole rows too.
LENGTHS = (200, 399, 2000, ROW - 1, ROW, ROW + 1, 9000, 2 * ROW, 11000, 36000)
CLASSES = ("hiss", "hum", "roar")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A workdir, and what it was trained on."""

    workdir: str
    recordings: Recordings

    def clips(self, fold=1, rate=RATE):
        """The clips that a fold's runs are tested on, as arrays with their rate."""
        clips = enumerate(self.recordings.info.clips)
        return [(self.recordings.audio(i), rate) for i, c in clips if c.fold == fold]


def make_recordings(classes=CLASSES, label=None):
    """Noise whose color tells the class, every length once in each fold."""
    rng = np.random.default_rng(0)
    audio, labels, folds = [], [], []
    for i, length in enumerate(LENGTHS * 4):
        number = i % len(classes)
        noise = rng.normal(scale=0.2, size=length + 16)
        smooth = np.convolve(noise, np.ones(1 + 7 * number), "same")[:length]
        audio.append((smooth / (1 + number)).clip(-1, 1).astype(np.float32))
        labels.append(classes[number])
        folds.append(1 + i // len(LENGTHS) % 2)
    if label is not None:
        return from_arrays(audio, label, RATE, classes=classes, fold=folds)
    return from_arrays(audio, labels, RATE, classes=classes, fold=folds)


def make_config(clip_mode="pad"):
    config = tiny.get_config()
    config.features.update(sample_rate=RATE, n_fft=800, n_mels=16, frames=16)
    config.data.clip_seconds = ROW / RATE
    config.data.clip_mode = clip_mode
    config.data.num_windows = 4
    config.data.stage = "audio"
    config.optimizer.warmup_epochs = 0.0
    config.epochs, config.batch_size = 1, 16
    config.sweep.folds = (1,)
    return config


def train(folder, config, recordings=None) -> Trained:
    recordings = recordings or make_recordings()
    sweep.train(config.lock(), folder, recordings=recordings)
    return Trained(str(folder), recordings)
