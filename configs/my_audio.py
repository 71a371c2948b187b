"""Train on your own folder of sounds; copy this file and change what you like.

python -m audiojax.main --config configs/my_audio.py --config.data.source_dir=DIR

DIR holds a folder of sounds for each class, or train/, validation/ and test/ with such
folders. docs/own_audio.md tells more: CSV tables, several labels a clip, recordings
that were cut into many clips.
"""

from audiojax.config import Config
from configs import esc50_efficientnet


def get_config() -> Config:
    """EfficientNet-Lite0 with ImageNet weights, which come with the project."""
    config = esc50_efficientnet.get_config()

    # "audio_folder", or "audio_csv" for a table of files, labels, folds and groups.
    config.data.name = "audio_folder"
    # What the network hears at once, in seconds: long enough for your sounds.
    config.data.clip_seconds = 5.0
    # Of longer clips a window in training, another each epoch, and in evaluation up to
    # data.num_windows of them; zeros follow shorter ones. For sounds much shorter than
    # clip_seconds try "repeat"; configs/common.py tells of the others.
    config.data.clip_mode = "crop"
    # Folds that are made where DIR has none, with equal shares of every class.
    config.data.num_folds = 5
    # "skip" leaves out files that can't be read, and names them in results.json.
    config.data.on_bad_file = "error"

    # All sounds are resampled to it; half of it is the highest frequency that is seen.
    # 22050 Hz, with features.n_fft = 2205, is enough for speech and most music.
    config.features.sample_rate = 44100

    # Passes over the training clips: more for a few hundred clips, fewer for many.
    config.epochs = 24
    # Less memory with less; halve the learning rate when you halve it.
    config.batch_size = 32
    config.optimizer.learning_rate = 1e-3

    # Folds to test on, each with a training of its own: (1, 2, 3, 4, 5) takes five
    # times as long and tells how far to trust the score.
    config.sweep.folds = (1,)
    # Several seeds make an ensemble, which is better and takes as many times as long.
    config.sweep.seeds = (0,)
    return config
