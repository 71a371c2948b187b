"""The paper's recipe for ESC-50, from which every other config differs in little.

A config is a function `get_config()` that returns an `ml_collections.ConfigDict`. Any
field can be changed on the command line, as in `--config.optimizer.learning_rate=3e-4`
or `--config.sweep.seeds=0,1,2`.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict, config_dict

from audiojax.augment import Augment
from audiojax.config import Config
from audiojax.features import PRESETS
from audiojax.study import Study


def features(preset: str) -> Config:
    """The fields of a `LogMel` preset."""
    return ConfigDict(dataclasses.asdict(PRESETS[preset]))


def augment(**settings: Any) -> Config:
    """The fields of `Augment`, which tells what each does; those not given are off."""
    return ConfigDict(dataclasses.asdict(Augment(**settings)))


def study(**settings: Any) -> Config:
    """The fields of `Study`, which tells what each is, for `config.study`."""
    return ConfigDict(dataclasses.asdict(Study(**settings)))


def get_config() -> Config:
    """Palanisamy, Singhania, Yao 2020 (arXiv 2007.11154), section 3, on ESC-50."""
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "esc50"
    # The folder that holds meta/ and audio/; without it the release is downloaded.
    config.data.source_dir = config_dict.placeholder(str)
    # Where prepared data are kept; without it audiojax/ in $XDG_CACHE_HOME or ~/.cache.
    config.data.data_dir = config_dict.placeholder(str)
    config.data.clip_seconds = 5.0
    # What is done with clips of another length. "pad": zeros after the shorter, the
    # longer cut at the end; "repeat": the shorter repeated, the longer cut; "crop": of
    # the longer a random window in training, the mean logits of several in evaluation;
    # "stretch": images of the shorter stretched to full width, the longer cut.
    config.data.clip_mode = "pad"
    # With "crop", the most windows of a clip in evaluation; no more than cover it.
    config.data.num_windows = 10
    # In evaluation, average logits over so many evenly spaced circular shifts of each
    # image in time; takes as many times longer. 0: the image as it is.
    config.data.test_shifts = 0
    # "spectrogram": each clip's image is made once; "audio": in the compiled step, so
    # that waveforms can be changed.
    config.data.stage = "audio"
    # Of sounds that are made by code, and of folds that are made here.
    config.data.seed = 0
    # None: the data set's own folds, or "stratified" where it has none; "stratified":
    # equal shares of every class, a recording's clips together; "random": a recording
    # may be on both sides, an error wherever one could be.
    config.data.split = config_dict.placeholder(str)
    # How many folds are made, where they are made.
    config.data.num_folds = 5
    # Folder with published lists of clips, where a data set has such.
    config.data.split_dir = config_dict.placeholder(str)
    # "error", or "skip": files that can't be used are left out, and named in
    # results.json.
    config.data.on_bad_file = "error"
    # Go on where training and test share a recording or a file.
    config.data.allow_leaks = False
    # Where classes have unequal numbers of clips: "class_weights" weighs the loss so
    # that all classes count alike, "sampling" draws each class as often; or "none".
    config.data.balance = "none"

    config.features = features("esc50")

    config.augment = augment(
        # Every epoch holds each clip twice, once clean and once changed.
        clean_copy=True,
        pitch_shift=(-2, 2),
        time_stretch=(0.9, 1.2),
    )

    config.model = ConfigDict()
    config.model.name = "resnet50"
    # "imagenet", the path of a .safetensors file, or None for random weights.
    config.model.pretrained = "imagenet"
    # Shift and scale images to mean 0 and deviation 1 over the training clips.
    config.model.standardize = False
    config.model.dropout = 0.0
    # Stochastic depth, of ResNet and EfficientNet-Lite: the share of clips for which a
    # training step leaves out the last block's branch, rising evenly from the first.
    config.model.drop_path = 0.0
    # Keep less for the gradient: what is inside of a stage is computed again. For
    # batches that an accelerator can't hold; computes about a third more.
    config.model.remat = False
    # What to compute in, "float32" or "bfloat16"; parameters are float32.
    config.model.dtype = "float32"
    config.model.batch_norm_momentum = 0.9
    # The last stage whose parameters stay as they are, and all before it with it, such
    # as "layer2"; a wrong name lists the network's. None: all of them train.
    config.model.freeze = config_dict.placeholder(str)
    # BatchNorm of frozen stages normalizes by its running statistics, which stay; or,
    # with True, by the batch, and they go on updating.
    config.model.update_batch_norm = False
    # The first stage that is drawn at random though the weights are pretrained, and
    # all after it with it. None: only the head is new.
    config.model.reinitialize = config_dict.placeholder(str)
    # In those stages BatchNorm is new too; with True it is as pretrained.
    config.model.keep_batch_norm = False
    # Draw convolutions He-normal by fan-out, instead of by the family's own rule.
    config.model.he_fan_out = False
    # The first stage that is left out, and all after it with it: the head works on
    # what is left. None: none is.
    config.model.cut = config_dict.placeholder(str)

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 1e-3
    config.optimizer.schedule = "step"
    config.optimizer.warmup_epochs = 0.0
    config.optimizer.step_epochs = 30
    config.optimizer.step_factor = 0.1
    # What weight_decay shrinks: "all", or "kernels" (no biases and no BatchNorm).
    config.optimizer.decay = "all"
    # The largest norm of the gradients, longer ones are scaled down to it; 0: any.
    config.optimizer.clip_norm = 0.0
    # How many times the learning rate the head has.
    config.optimizer.head_factor = 1.0
    # Each stage before the head has so many times the learning rate of the next one.
    config.optimizer.layer_decay = 1.0
    # In the loss, the share of each target that is spread over all classes.
    config.optimizer.label_smoothing = 0.0
    # What averages of the parameters keep at each step; they are the model. 0: none.
    config.optimizer.ema_decay = 0.0

    config.epochs = 70
    config.batch_size = 32
    # Work a batch in in so many parts, one after the other: less memory, same gradient.
    config.accumulate = 1
    config.evaluate_every_epochs = 1

    config.sweep = ConfigDict()
    config.sweep.folds = (1, 2, 3, 4, 5)
    config.sweep.seeds = (0,)
    # What picks the epoch that is reported as "best" beside the last one: "fold" (the
    # fold after the test fold) or a share of the training clips, such as "0.15", by
    # class and recording; None for nothing.
    config.sweep.validation = config_dict.placeholder(str)

    # How runs are laid over devices: "data_parallel" (one run over all of them),
    # "seed_parallel" (a run on each), or "auto" (side by side where batches are small
    # for the devices).
    config.parallel = "auto"

    # A run that is killed loses at most this much.
    config.checkpoint_seconds = 60.0
    # Updates that are not finite are left out; after so many in a row the run stops.
    config.max_skipped_in_a_row = 10
    config.tensorboard = True
    return config
