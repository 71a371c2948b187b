"""Measures speed beside the libraries that do the same work, in one run.

    python scripts/benchmark.py features
    python scripts/benchmark.py features --clips ../esc10/audio --preset esc50
    python scripts/benchmark.py models --models resnet50 --batch 16
    python scripts/benchmark.py train
    python scripts/benchmark.py data --source_dir ../esc10

The contenders take turns, so that a busy machine slows all alike: compare the
ratios, and the numbers only on a machine that does nothing else. PyTorch is not one
of the project's dependencies; where it can't be imported it is left out.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import ctypes
import dataclasses
import functools
import importlib
import importlib.util
import itertools
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import optax
import soundfile
import soxr
from etils import epath
from PIL import Image

from audiojax import models
from audiojax.clips import ClipPolicy
from audiojax.config import Config
from audiojax.datasets import Recordings, batches, from_arrays
from audiojax.errors import InputError
from audiojax.features import PRESETS, LogMel, log_mel
from audiojax.training import sweep
from audiojax.training import trainer as train
from audiojax.training.checkpoints import Checkpoints
from audiojax.training.loop import STEPS_AHEAD
from audiojax.training.progress import Scalars
from audiojax.training.runs import Run

OURS = "audiojax"

# Of the networks.
CLASSES = 50
LEARNING_RATE = 1e-3


def environment(*packages: str) -> str:
    """One line: cores this process may use, load, device, versions."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return (
        f"{platform.machine()}, {cores} cores, load before the run "
        f"{os.getloadavg()[0]:.1f}; JAX on {jax.devices()[0].device_kind}; "
        f"Python {platform.python_version()}, "
    ) + ", ".join(
        f"{name} {importlib.import_module(name).__version__}" for name in packages
    )


def take_turns(
    contenders: dict[str, Callable[[], Any]], repeats: int
) -> dict[str, float]:
    """Median seconds of each contender; all run once a round, after one to warm up.

    Args:
        contenders: name to a function that returns when its work is done.
        repeats: rounds that are timed.
    """
    seconds = {name: [] for name in contenders}
    for round_ in range(repeats + 1):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            if round_ > 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(times) for name, times in seconds.items()}


def print_rates(rates: dict[str, float], unit: str) -> None:
    """A Markdown table of rates and how many times faster ours is."""
    print(f"\n| | {unit} | ours is faster by |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.1f} | {rates[OURS] / rate:.2f} |")


def read_clips(folder: Path | None, settings: LogMel, count: int) -> np.ndarray:
    """Clips [count, T] of five seconds: the first audio files, or else made noise."""
    clips = np.zeros((count, 5 * settings.sample_rate), np.float32)
    if folder is None:
        return np.random.default_rng(0).normal(0, 0.1, clips.shape).astype(np.float32)
    formats = {f".{name.lower()}" for name in soundfile.available_formats()}
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in formats)
    if not files:
        raise InputError(f"{folder} holds no audio file; give a folder with some")
    for index, clip in enumerate(clips):
        path = files[index % len(files)]
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        audio = soxr.resample(audio.mean(axis=1), rate, settings.sample_rate)
        clip[: len(audio)] = audio[: len(clip)]
    return clips


def librosa_log_mel(clips: np.ndarray, settings: LogMel) -> np.ndarray:
    """What `log_mel` computes, by librosa and Pillow, a clip at a time."""
    channels = []
    for window, hop in zip(settings.window_lengths, settings.hop_lengths, strict=True):
        images = []
        for clip in clips:
            mel = librosa.feature.melspectrogram(
                y=clip,
                sr=settings.sample_rate,
                n_fft=settings.n_fft,
                win_length=window,
                hop_length=hop,
                n_mels=settings.n_mels,
                htk=True,
                norm=None,
                pad_mode="reflect",
            )
            image = Image.fromarray(np.log(mel + settings.eps))
            size = (settings.frames, settings.n_mels)
            images.append(np.asarray(image.resize(size, Image.Resampling.BILINEAR)))
        channels.append(np.stack(images))
    return np.stack(channels, axis=-1)


def torch_log_mel(clips: np.ndarray, settings: LogMel) -> Callable[[], Any]:
    """What `log_mel` computes, by PyTorch, the whole batch at once.

    Returns:
        A function that does the work; it leaves the images where they are made.
    """
    import torch  # pyright: ignore[reportMissingImports]

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    audio = torch.tensor(clips, device=device)
    filters = torch.tensor(
        librosa.filters.mel(
            sr=settings.sample_rate,
            n_fft=settings.n_fft,
            n_mels=settings.n_mels,
            htk=True,
            norm=None,
        ),
        device=device,
    )
    lengths = list(zip(settings.window_lengths, settings.hop_lengths, strict=True))
    windows = [torch.hann_window(window, device=device) for window, _ in lengths]

    @torch.inference_mode()
    def work():
        channels = []
        for (window, hop), hann in zip(lengths, windows, strict=True):
            spectra = torch.stft(
                audio,
                settings.n_fft,
                hop,
                window,
                hann,
                pad_mode="reflect",
                return_complex=True,
            )
            # Faster than spectra.abs() ** 2, which takes a square root.
            power = spectra.real.square() + spectra.imag.square()
            mel = torch.log(filters @ power + settings.eps)
            images = torch.nn.functional.interpolate(
                mel[:, None],
                (settings.n_mels, settings.frames),
                mode="bilinear",
                antialias=True,
            )
            channels.append(images[:, 0])
        images = torch.stack(channels, dim=-1)
        if device == "cuda":
            torch.cuda.synchronize()
        return images

    return work


def features(args: argparse.Namespace) -> None:
    """Clips per second of the log-mel: librosa, torch.stft and ours."""
    settings = PRESETS[args.preset]
    clips = read_clips(args.clips, settings, args.batch)
    # librosa works clip by clip: a quarter of them tells its speed.
    few = clips[: max(1, len(clips) // 4)]
    audio = jax.device_put(clips)
    packages = ["jax", "librosa"]
    contenders: dict[str, Callable[[], Any]] = {
        OURS: lambda: log_mel(audio, settings).block_until_ready(),
        "librosa": lambda: librosa_log_mel(few, settings),
    }
    try:
        contenders["torch.stft"] = torch_log_mel(clips, settings)
        packages.append("torch")
    except ImportError:
        print("torch can't be imported here: left out")

    print(environment(*packages))
    print(f"{args.batch} clips of 5 s, {settings.sample_rate} Hz, preset {args.preset}")
    images = {name: np.asarray(work()) for name, work in contenders.items()}
    for name in list(contenders)[1:]:
        difference = np.abs(images[name] - images[OURS][: len(images[name])]).max()
        print(f"largest difference of {name} from {OURS}: {difference:.1e}")
    seconds = take_turns(contenders, args.repeats)
    rates = {name: len(images[name]) / seconds[name] for name in contenders}
    print_rates(rates, "clips per second")


class Network(NamedTuple):
    """A network that is ready to be timed.

    Attributes:
        train: takes one step on the batch, and returns when that is done.
        infer: computes the logits of the batch, and returns when that is done.
        train_bytes: measures what a step needs beyond what is held between steps.
        infer_bytes: the same of inference.
        start: seconds that compiling both took, or the first call of each.
    """

    train: Callable[[], Any]
    infer: Callable[[], Any]
    train_bytes: Callable[[], float]
    infer_bytes: Callable[[], float]
    start: float


def our_network(
    name: str, images: np.ndarray, labels: np.ndarray, precision: str
) -> Network:
    """The network of this project with fresh parameters, trained by plain SGD."""
    network = models.create(name, CLASSES, dtype=jnp.dtype(precision))
    image, label = jax.device_put((images, labels))
    forward = functools.partial(network.apply, train=False)
    initialize = jax.jit(functools.partial(network.init, train=False))
    variables = initialize(jax.random.key(0), image[:1])

    def train_step(variables, image, label):
        def loss(params):
            logits, updated = network.apply(
                {**variables, "params": params},
                image,
                train=True,
                mutable=["batch_stats"],
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
            return losses.mean(), updated

        gradients, updated = jax.grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(
            lambda value, gradient: value - LEARNING_RATE * gradient,
            variables["params"],
            gradients,
        )
        return {"params": params, **updated}

    start = time.perf_counter()
    step = jax.jit(train_step, donate_argnums=0).lower(variables, image, label)
    step = step.compile()
    logits = jax.jit(forward).lower(variables, image).compile()
    start = time.perf_counter() - start

    def train():
        nonlocal variables
        variables = jax.block_until_ready(step(variables, image, label))

    return Network(
        train,
        lambda: logits(variables, image).block_until_ready(),
        lambda: _planned_bytes(step),
        lambda: _planned_bytes(logits),
        start,
    )


def _planned_bytes(compiled: Any) -> float:
    plan = compiled.memory_analysis()
    new = plan.output_size_in_bytes - plan.alias_size_in_bytes
    return plan.temp_size_in_bytes + new


def torch_network(
    name: str, images: np.ndarray, labels: np.ndarray, precision: str, compiled: bool
) -> Network:
    """PyTorch's network of the same name, channels last, trained by plain SGD.

    That of torchvision, or of `efficientnet-lite-pytorch`. Weights are float32; in
    bfloat16 it runs under autocast.
    """
    import torch  # pyright: ignore[reportMissingImports]

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    # JAX multiplies float32 so too.
    torch.backends.cuda.matmul.allow_tf32 = True
    network = _torch_module(name).to(device, memory_format=torch.channels_last)
    forward = torch.compile(network) if compiled else network
    image = torch.tensor(images.transpose(0, 3, 1, 2), device=device)
    image = image.contiguous(memory_format=torch.channels_last)
    label = torch.tensor(labels, device=device)
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE)

    def autocast():
        return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    def train():
        network.train()
        optimizer.zero_grad()
        with autocast():
            loss = torch.nn.functional.cross_entropy(forward(image), label)
        loss.backward()
        optimizer.step()
        wait()

    def infer():
        network.eval()
        with torch.inference_mode(), autocast():
            forward(image)
        wait()

    def peak_bytes(work: Callable[[], Any]) -> float:
        # Not held between steps: the gradients of the last one.
        optimizer.zero_grad()
        if device == "cpu":
            return _peak_resident_bytes(work)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before

    start = time.perf_counter()
    train()
    infer()
    start = time.perf_counter() - start
    return Network(
        train, infer, lambda: peak_bytes(train), lambda: peak_bytes(infer), start
    )


def _torch_module(name: str) -> Any:
    import torch  # pyright: ignore[reportMissingImports]

    if name.startswith("efficientnet_lite"):
        from efficientnet_lite_pytorch import (  # pyright: ignore[reportMissingImports]
            EfficientNet,
        )

        return EfficientNet.from_name(name.replace("_", "-"), num_classes=CLASSES)
    # A torchvision without compiled operators wants these declared to be imported.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            library.define(f"{operator}(Tensor a, Tensor b, float c) -> Tensor")
    import torchvision  # pyright: ignore[reportMissingImports]

    options = {"aux_logits": False} if name == "inception_v3" else {}
    return torchvision.models.get_model(name, num_classes=CLASSES, **options)


def _peak_resident_bytes(work: Callable[[], Any]) -> float:
    """What a call makes the process hold at most beyond what it held; Linux alone."""
    if sys.platform != "linux":
        return math.nan

    def resident(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(s.split()[1]) for s in lines if s.startswith(field))

    # Give back what earlier calls have freed, and forget the peak so far.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def compare_models(args: argparse.Namespace) -> None:
    """Time and memory of training steps and inference: PyTorch's networks and ours."""
    # PyTorch is to find memory on the same GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    on_gpu = jax.default_backend() == "gpu"
    kinds = {"PyTorch": False} | ({"torch.compile": True} if on_gpu else {})
    packages = ["jax", "flax"]
    try:
        importlib.import_module("torch")
        packages.append("torch")
    except ImportError:
        print("torch can't be imported here: left out")
        kinds = {}
    print(environment(*packages))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(args.batch, 128, 250, 3)).astype(np.float32)
    labels = rng.integers(CLASSES, size=args.batch)
    for name in args.models:
        for precision in ("float32", "bfloat16") if on_gpu else ("float32",):
            batch = (name, images, labels, precision)
            networks = {OURS: our_network(*batch)}
            for kind, compiled in kinds.items():
                try:
                    networks[kind] = torch_network(*batch, compiled)
                except ImportError as error:
                    print(f"{kind}'s {name} left out: {error}")
            print(f"\n{name}, {precision}, {args.batch} images of 128x250")
            print_networks(networks, args.repeats)


def print_networks(networks: dict[str, Network], repeats: int) -> None:
    """A Markdown table: seconds, how many times as long ours takes, memory."""
    steps = take_turns({n: network.train for n, network in networks.items()}, repeats)
    calls = take_turns({n: network.infer for n, network in networks.items()}, repeats)
    print(
        "\n| | training step, s | ours takes | it adds, MB "
        "| inference, s | ours takes | it adds, MB | to start, s |"
    )
    print("|---" * 8 + "|")
    for name, network in networks.items():
        print(
            f"| {name} "
            f"| {steps[name]:.3f} | {steps[OURS] / steps[name]:.2f} "
            f"| {network.train_bytes() / 1e6:.0f} "
            f"| {calls[name]:.3f} | {calls[OURS] / calls[name]:.2f} "
            f"| {network.infer_bytes() / 1e6:.0f} | {network.start:.1f} |"
        )


def data(args: argparse.Namespace) -> None:
    """Preparing ESC-10, opening it again, and batches of both stages; librosa beside.

    What librosa decodes is not stored. TensorFlow is imported before the clock starts.
    """
    from audiojax import datasets
    from audiojax.clips import ClipPolicy
    from audiojax.datasets import Settings, batches

    importlib.import_module("tensorflow")
    print(environment("tensorflow", "tensorflow_datasets", "librosa"))
    rate = PRESETS["esc50"].sample_rate
    paths = sorted((args.source_dir / "audio").iterdir())

    def load(store: str) -> datasets.Recordings:
        settings = Settings(
            source_dir=str(args.source_dir), data_dir=store, sample_rate=rate
        )
        return datasets.load("esc10", settings)

    def prepare() -> None:
        with tempfile.TemporaryDirectory(dir=args.data_dir) as store:
            load(store)

    def decode(path: Path) -> np.ndarray:
        return librosa.load(path, sr=rate)[0]

    def decode_in_threads() -> None:
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            collections.deque(pool.map(decode, paths), maxlen=0)

    with tempfile.TemporaryDirectory(dir=args.data_dir) as store:
        start = time.perf_counter()
        recordings = load(store)
        first = time.perf_counter() - start
        again = take_turns({OURS: lambda: load(store)}, args.repeats)[OURS]
        count, batch = len(recordings), args.batch
        print(f"{count} clips, {rate} Hz, of {len(paths)} files")
        print(f"first start of the process: {first:.2f} s, {count / first:.0f} clips/s")
        print(f"second start: {again:.3f} s")
        seconds = take_turns(
            {
                OURS: prepare,
                "librosa, threads": decode_in_threads,
                "librosa": lambda: [decode(path) for path in paths],
            },
            args.repeats,
        )
        rates = {name: len(paths) / duration for name, duration in seconds.items()}
        print_rates(rates, "clips prepared per second")

        images = np.lib.format.open_memmap(
            Path(store) / "images.npy", "w+", np.float32, (count, 128, 250, 3)
        )
        images[:] = 1
        stream = functools.partial(
            batches.train_batches,
            recordings,
            np.arange(count),
            batch_size=batch,
            policy=ClipPolicy("pad", recordings.num_samples),
            seed=0,
            epoch=0,
        )
        seconds = take_turns(
            {
                OURS: lambda: collections.deque(stream(), maxlen=0),
                "audiojax, images": lambda: collections.deque(
                    stream(image=images), maxlen=0
                ),
                "librosa": lambda: [decode(path) for path in paths[:batch]],
            },
            args.repeats,
        )
        number = {name: batches.num_batches(count, batch) for name in seconds}
        number["librosa"] = 1
        print_rates(
            {n: number[n] / s for n, s in seconds.items()}, "batches per second"
        )


# Of what training costs beside its steps.
CHECKPOINT_SECONDS = 60.0  # as in configs/common.py
EPOCH_CLIPS = 1600  # of ESC-50, a fold held out


def train_overhead(args: argparse.Namespace) -> None:
    """What checkpoints and metrics add to a training, and how it waits for data."""
    # The configs are no part of what is installed.
    sys.path.append(str(Path(__file__).parents[1]))
    from configs import demo, esc10_efficientnet

    print(environment("jax", "orbax.checkpoint"))
    with tempfile.TemporaryDirectory() as scratch:
        config = (esc10_efficientnet if args.source else demo).get_config()
        config.data.source_dir = args.source and str(args.source)
        config.data.data_dir = str(args.data_dir or scratch)
        config.epochs, config.evaluate_every_epochs = args.epochs, 0
        recordings = sweep.load(config)
        if "overhead" in args.parts:
            print_overhead(config, recordings, args, epath.Path(scratch))
        if "data" in args.parts:
            print_waits(recordings, args, Path(scratch))


def print_overhead(
    config: Config, recordings: Recordings, args: argparse.Namespace, scratch: Any
) -> None:
    """A table: what our training takes beyond a bare loop of the same steps.

    All start from the weights' file and end with the predictions of the test clips.
    Processor time counts all threads, and other work on the machine disturbs it less.
    Least disturbed is the share of a run in which its loop stands still in a call that
    saves, writes metrics, or waits for the last save; what is written behind the
    training is not part of it.
    """
    # What is imported once in a process is not counted.
    importlib.import_module("clu.metric_writers")
    trainer = train.Trainer(config, train.open_data(config, recordings))
    run = Run(fold=config.sweep.folds[0], seed=0)
    calls: list[tuple[str, float]] = []

    def ours(seconds: float) -> None:
        calls.clear()
        config.checkpoint_seconds = seconds
        with tempfile.TemporaryDirectory(dir=scratch) as workdir:
            trainer.train([run], epath.Path(workdir))

    contenders = {
        "bare": lambda: bare_training(trainer, run),
        "last": lambda: ours(math.inf),
        "all": lambda: ours(args.checkpoint_seconds),
    }
    seconds: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    still: list[dict[str, float]] = []
    with contextlib.ExitStack() as patches:
        for owner, name in (
            (Checkpoints, "save"),
            (Checkpoints, "__exit__"),
            (Scalars, "write"),
        ):
            timed = _timed(getattr(owner, name), calls)
            patches.enter_context(mock.patch.object(owner, name, timed))
        bare_training(trainer, run)  # compiles
        for _ in range(args.rounds):
            for name, work in contenders.items():
                start = time.perf_counter(), time.process_time()
                work()
                seconds["wall", name].append(time.perf_counter() - start[0])
                seconds["cpu", name].append(time.process_time() - start[1])
                print(f"{name}: {seconds['wall', name][-1]:.1f} s", file=sys.stderr)
            took: dict[str, float] = {"saves": sum(name == "save" for name, _ in calls)}
            for name, duration in calls:
                took[name] = took.get(name, 0) + duration
            still.append(took)
    steps = config.epochs * trainer.feed.steps_per_epoch(run.fold)
    every = f"one every {args.checkpoint_seconds:g} s and the last"
    print(
        f"\n{config.model.name}, {recordings.info.name}, {steps} steps of "
        f"{config.batch_size} images, median of {args.rounds} rounds\n\n"
        "| | bare, s | metrics and the last checkpoint add "
        f"| metrics and checkpoints add, {every} |\n" + "|---" * 4 + "|"
    )
    for kind, words in {"wall": "time", "cpu": "processor time"}.items():
        rounds = np.array([seconds[kind, name] for name in contenders])
        last, all_ = np.median(rounds[1:] / rounds[0] - 1, axis=1)
        print(f"| {words} | {np.median(rounds[0]):.1f} | {last:+.1%} | {all_:+.1%} |")
    wall = np.array(seconds["wall", "all"])
    saves, save, end, write = (
        np.array([took[name] for took in still])
        for name in ("saves", "save", "__exit__", "write")
    )
    share = np.median((save + end + write) / wall)
    often = np.median(write / wall + (save + end) / saves / CHECKPOINT_SECONDS)
    print(
        f"\nThe loop stands still for {share:.1%} of the run ({saves.mean():.1f} "
        f"checkpoints: {np.median(save / saves):.3f} s each, {np.median(end):.2f} s at "
        f"the end; metrics: {np.median(write / wall):.2%}). Computed from it for one "
        f"checkpoint every {CHECKPOINT_SECONDS:g} s: {often:.2%}."
    )


def _timed(
    method: Callable[..., Any], calls: list[tuple[str, float]]
) -> Callable[..., Any]:
    """The method, which also notes its name and the seconds of each call."""

    @functools.wraps(method)
    def timed(*args: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*args)
        finally:
            calls.append((method.__name__, time.perf_counter() - start))

    return timed


def bare_training(trainer: train.Trainer, run: Run) -> None:
    """The steps of `Trainer.train` and its predictions, and nothing else."""
    config, data, split = trainer.config, trainer.data, trainer.feed.split(run.fold)
    program = trainer.programs.get(1, trainer.feed.steps_per_epoch(run.fold))
    state, pending = trainer.initial_state(run), collections.deque()
    key = jax.random.key(run.seed)
    for epoch in range(config.epochs):
        for batch in batches.train_batches(
            data.recordings,
            split.train,
            batch_size=config.batch_size,
            policy=trainer.classifier.clip_policy,
            seed=run.seed,
            epoch=epoch,
            image=data.images,
        ):
            state, metrics = program.train_step(
                state, program.spread.batch([batch]), key
            )
            pending.append(metrics)
            if len(pending) > STEPS_AHEAD:
                jax.block_until_ready(pending.popleft())
    trainer.evaluator.predictions(state.variables, split.test)


def print_waits(
    recordings: Recordings, args: argparse.Namespace, scratch: Path
) -> None:
    """A table: how long a device of a given speed waits for batches of 32."""
    if args.source is None:
        rate, random = 44100, np.random.default_rng(0)
        noise = random.integers(-3000, 3000, (400, 5 * rate), np.int16)
        recordings = from_arrays(noise, np.arange(400) % 10, rate)
    shape = (len(recordings), 128, 250, 3)
    file = scratch / "images.npy"
    images = np.lib.format.open_memmap(file, "w+", np.float32, shape)
    images[:] = 1
    images.flush()
    image = {"audio": None, "spectrogram": np.load(file, mmap_mode="r")}
    drivers = {"threads": True}
    if importlib.util.find_spec("tensorflow"):
        drivers["tf.data"] = False
    policy = ClipPolicy("pad", 5 * recordings.info.sample_rate)
    clips = np.resize(np.arange(len(recordings)), EPOCH_CLIPS)
    found: dict[tuple[Any, ...], list[tuple[float, ...]]] = {}
    for round_ in range(args.rounds + 1):
        for stage, driver in itertools.product(image, drivers):
            source = dataclasses.replace(recordings, in_memory=drivers[driver])

            def read(epoch: int, source=source, stage=stage) -> Iterator[Any]:
                return batches.train_batches(
                    source,
                    clips,
                    batch_size=32,
                    policy=policy,
                    seed=0,
                    epoch=epoch,
                    image=image[stage],
                )

            shares = waits(read, args.data_epochs, args.step_ms / 1000)
            if round_ > 0:
                found.setdefault((stage, driver), []).append(shares)
    print(
        f"\n{recordings.info.name}, {args.data_epochs} epochs of {EPOCH_CLIPS} clips "
        f"of 5 s, {recordings.info.sample_rate} Hz, batch 32, a step of "
        f"{args.step_ms:g} ms, median of {args.rounds} rounds\n\n"
        "| stage | fetched by | device waits "
        "| of that, for an epoch's first batch | loop waits |\n" + "|---" * 5 + "|"
    )
    for (stage, driver), rounds in found.items():
        shares = " | ".join(f"{share:.1%}" for share in np.median(rounds, axis=0))
        print(f"| {stage} | {driver} | {shares} |")


def waits(
    read: Callable[[int], Iterator[Any]], epochs: int, step: float
) -> tuple[float, float, float]:
    """Trains on a device that only sleeps, as the training loop does.

    Args:
        read: epoch -> its batches, which are fetched from then on.
        epochs: how many.
        step: seconds that the device takes for one.

    Returns:
        Shares of the time from the first batch on: that the device did nothing, that
        it did so before the first step of an epoch, and that the loop spent asking
        for a batch. The run's first batch is left out: it comes once a run.
    """
    busy: list[tuple[float, float]] = []

    def work() -> None:
        start = time.perf_counter()
        time.sleep(step)
        busy.append((start, time.perf_counter()))

    asked, pending = 0.0, collections.deque()
    steps = batches.num_batches(EPOCH_CLIPS, 32)
    with concurrent.futures.ThreadPoolExecutor(1) as device:
        following = read(0)
        for epoch in range(epochs):
            stream = following
            for number in range(steps):
                start = time.perf_counter()
                next(stream)
                if epoch or number:
                    asked += time.perf_counter() - start
                if number == steps - 1 and epoch < epochs - 1:
                    following = read(epoch + 1)
                pending.append(device.submit(work))
                if len(pending) > STEPS_AHEAD:
                    pending.popleft().result()
            # The loop reads the metrics of all steps at the end of an epoch.
            while pending:
                pending.popleft().result()
    starts, ends = np.array(busy).T
    total = ends[-1] - starts[0]
    idle = starts[1:] - ends[:-1]
    return idle.sum() / total, idle[steps - 1 :: steps].sum() / total, asked / total


def main() -> None:
    """Parses the command line and runs one benchmark."""
    parser = argparse.ArgumentParser(description="Measures speed, in one run.")
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("features", help=features.__doc__)
    command.add_argument("--clips", type=Path, help="folder with audio; default: noise")
    command.add_argument("--preset", choices=PRESETS, default="esc50")
    command.add_argument("--batch", type=int, default=16)
    command.add_argument("--repeats", type=int, default=7)
    command.set_defaults(run=features)

    command = commands.add_parser("models", help=compare_models.__doc__)
    command.add_argument(
        "--models",
        nargs="+",
        choices=models.MODELS,
        default=["resnet50", "densenet201", "efficientnet_lite0"],
    )
    command.add_argument("--batch", type=int, default=32)
    command.add_argument("--repeats", type=int, default=5)
    command.set_defaults(run=compare_models)

    command = commands.add_parser("data", help=data.__doc__)
    command.add_argument("--source_dir", type=Path, required=True, help="ESC-10")
    command.add_argument("--data_dir", help="for temporary files")
    command.add_argument("--batch", type=int, default=32)
    command.add_argument("--repeats", type=int, default=5)
    command.set_defaults(run=data)

    command = commands.add_parser("train", help=train_overhead.__doc__)
    command.add_argument("--source", type=Path, help="ESC-10; default: made sounds")
    command.add_argument("--data-dir", type=Path, help="prepared data; default: none")
    command.add_argument(
        "--parts",
        nargs="+",
        choices=["overhead", "data"],
        default=["overhead", "data"],
    )
    command.add_argument("--epochs", type=int, default=3)
    command.add_argument("--rounds", type=int, default=2)
    command.add_argument("--checkpoint-seconds", type=float, default=5)
    command.add_argument("--data-epochs", type=int, default=3)
    command.add_argument("--step-ms", type=float, default=50)
    command.set_defaults(run=train_overhead)

    args = parser.parse_args()
    try:
        args.run(args)
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
