"""What happens to workdirs and caches: each fault gets its sentence, and costs no bit.

Every fault is done to what the command left, and the command typed again. It ends with
the same bits, or it refuses; what it advises is then done, and it is typed once more.
"""

import dataclasses
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import mixed_tree

ONE, OTHER = "fold1-seed0", "fold2-seed0"


# The command in a process of its own, which is forked from one that has imported all.


def child(module, arguments, out, err):
    """Runs a command as if it were typed."""
    with open(out, "w") as stdout, open(err, "w") as stderr:
        os.dup2(stdout.fileno(), 1)
        os.dup2(stderr.fileno(), 2)
    from absl import app

    from tests import tiny

    tiny.register()
    sys.argv = [module, *arguments]
    if module == "audiojax.main":
        from audiojax import main

        app.run(main.main, flags_parser=main.parse)
    else:
        from audiojax import ensemble

        ensemble.define_flags()
        app.run(ensemble.main)


@pytest.fixture(scope="module")
def typed(tmp_path_factory, repo_root):
    """Runs a command to its end: exit status, standard output, standard error."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(
        [
            *("audiojax.main", "audiojax.ensemble", "audiojax.datasets.store.prepare"),
            *("orbax.checkpoint", "tests.tiny", "sklearn.metrics"),
        ]
    )
    out, err = (tmp_path_factory.mktemp("typed") / name for name in ("out", "err"))

    def run(module, *arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XLA_FLAGS", "")
            patch.setenv(
                "JAX_COMPILATION_CACHE_DIR", str(repo_root / ".pytest_cache" / "xla")
            )
            given = (module, list(map(str, arguments)), str(out), str(err))
            process = server.Process(target=child, args=given)
            process.start()
        process.join()
        return process.exitcode, out.read_text(), err.read_text()

    return run


# What the faults are done to.


@dataclasses.dataclass(frozen=True)
class Place:
    """Folders that a fault is done to: a workdir, its sounds, what is prepared."""

    folder: Path

    @property
    def work(self):
        return self.folder / "work"

    @property
    def sounds(self):
        return self.folder / "sounds"

    @property
    def data(self):
        return self.folder / "data"

    @property
    def images(self):
        """The file of images that are computed once."""
        (path,) = self.data.glob("log_mel-*.npy")
        return path

    @property
    def shard(self):
        """The file of prepared audio."""
        paths = [p for p in self.data.glob("**/*array_record*") if p.is_file()]
        return max(paths, key=lambda path: path.stat().st_size)


def arguments(place, *more):
    return (
        "--config=tests/tiny.py",
        f"--workdir={place.work}",
        "--config.data.name=audio_folder",
        f"--config.data.source_dir={place.sounds}",
        f"--config.data.data_dir={place.data}",
        "--config.data.num_folds=2",
        "--config.features.sample_rate=8000",
        "--config.sweep.validation=0.3",
        "--config.batch_size=4",
        *more,
    )


def outcome(work):
    """Bytes of all that a sweep ends with but for times and provenance."""
    found = {}
    for path in sorted(work.rglob("*")):
        name = str(path.relative_to(work))
        if path.name in ("predictions.npz", "validation.npz", "metrics.jsonl"):
            found[name] = path.read_bytes()
        elif path.name in ("results.json", "result.json", "data.json", "config.json"):
            found[name] = json.loads(path.read_text(), object_hook=lasting)
    return found


def lasting(content):
    """An object of JSON without what changes when it is made anew."""
    changing = ("seconds", "sha256", "source_dir", "data_dir", "config.json")
    return {name: value for name, value in content.items() if name not in changing}


def content(folder):
    """Bytes of all files, but for the locks."""
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory, typed):
    """A sweep of two runs that nothing ever stopped."""
    place = Place(tmp_path_factory.mktemp("finished"))
    for seed in range(16):
        kind = ("cat", "dog")[seed % 2]
        path = place.sounds / kind / f"{seed}.wav"
        mixed_tree.write(path, seed, seconds=0.3, rate=8000)
    status, _, err = typed("audiojax.main", *arguments(place))
    assert status == 0, err
    assert len(outcome(place.work)) == 3 + 2 * 5
    return place


@pytest.fixture
def place(finished, tmp_path):
    """A copy of it, on another path, as on another machine."""
    shutil.copytree(finished.folder, tmp_path / "copy")
    return Place(tmp_path / "copy")


def halve(place):
    """Leaves the second run as a kill between two checkpoints leaves it."""
    run = place.work / OTHER
    for name in ("result.json", "predictions.npz", "validation.npz"):
        (run / name).unlink()
    last = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(last)
    (place.work / "results.json").unlink()


# Faults of one file.


def emptied(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def deleted(path):
    path.unlink()


def blank(path):
    path.write_text("{}\n")


def newer(path):
    """As a later version would write it."""
    from audiojax import files

    content = files.read_sealed(path, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "FORMAT", 99)
        files.write_sealed(path, content)


def edited(path):
    """An accuracy that someone would like better."""
    path.write_text(path.read_text().replace('"accuracy": 0.', '"accuracy": 1.'))


def at(name, damage):
    """A fault of a file of the workdir."""

    def fault(place):
        paths = sorted(place.work.glob(name))
        assert paths, name
        before = paths[-1].read_bytes()
        damage(paths[-1])
        assert not paths[-1].exists() or paths[-1].read_bytes() != before

    return fault


def newest(place, run=ONE):
    """The largest file of a run's last checkpoint."""
    folder = place.work / run / "checkpoints"
    last = max(folder.iterdir(), key=lambda path: int(path.name))
    files = [path for path in last.rglob("d/*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


# Faults of the data.


def renamed(place):
    """Names in another order, so that made folds move."""
    for path in sorted((place.sounds / "cat").iterdir()):
        path.rename(path.with_name(f"{99 - int(path.stem)}.wav"))


def rename_class(place):
    (place.sounds / "cat").rename(place.sounds / "horse")


def other_sound(place):
    mixed_tree.write(place.sounds / "cat" / "0.wav", 99, seconds=0.3, rate=8000)


def one_more(place):
    mixed_tree.write(place.sounds / "cat" / "new.wav", 99, seconds=0.3, rate=8000)


def one_less(place):
    (place.sounds / "dog" / "5.wav").unlink()


def other_class(place):
    (place.sounds / "dog" / "5.wav").rename(place.sounds / "cat" / "5.wav")


def restore(place, finished):
    """The data as they were."""
    shutil.rmtree(place.sounds)
    shutil.copytree(finished.sounds, place.sounds)


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that happens between two commands.

    Attributes:
        name: of the fault.
        act: does it.
        says: words that standard error must hold; none: nothing is said.
        refused: whether the command ends with status 1, and changes nothing.
        mend: what the sentence advises, done before the command is typed again.
        more: other arguments of the first command.
        half: whether it is done to a sweep that was stopped, not to a finished one.
    """

    name: str
    act: Callable[[Place], object]
    says: tuple[str, ...] = ()
    refused: bool = False
    mend: Callable[[Place, Place], object] | None = None
    more: tuple[str, ...] = ()
    half: bool = False


WHOLE = (emptied, cut, flipped, blank)


def each(names, damages, *says, **more):
    """A fault for each file and kind of damage."""
    return [
        Fault(f"{do.__name__} {name}", at(name, do), says, **more)
        for name in names
        for do in damages
    ]


TOP, OWN = ("config.json", "data.json", "results.json"), f"{ONE}/result.json"
ARRAYS = (f"{ONE}/predictions.npz", f"{ONE}/validation.npz", f"{ONE}/metrics.jsonl")
FAULTS = [
    *each(TOP[:1], WHOLE, "config.json is damaged", "training writes it anew"),
    *each([f"{ONE}/config.json"], WHOLE, "config.json is damaged", "made anew"),
    *each(TOP[1:], WHOLE),
    *each([OWN], (*WHOLE, edited), "result.json is damaged", "made anew"),
    *each(ARRAYS, (emptied, cut, flipped), "is damaged", "made anew"),
    *each(ARRAYS, [deleted], "is missing", "made anew"),
    *each([*TOP, OWN], [deleted]),
    *each([TOP[0], OWN], [newer], "newer version", "install", refused=True),
]


def damage_both(place):
    at("config.json", cut)(place)
    at(f"{OTHER}/config.json", deleted)(place)


def delete_run(place, _):
    shutil.rmtree(place.work / OTHER)


HALF = [
    Fault("nothing", lambda place: None, half=True),
    Fault(
        "no config of a run",
        at(f"{OTHER}/config.json", deleted),
        half=True,
    ),
    Fault(
        "nothing tells the config",
        damage_both,
        ("nothing tells what it was trained with", "delete that folder"),
        refused=True,
        mend=delete_run,
        half=True,
    ),
    Fault(
        "cut metrics",
        at(f"{OTHER}/metrics.jsonl", cut),
        half=True,
    ),
    Fault(
        "foreign metrics",
        lambda place: (place.work / OTHER / "metrics.jsonl").write_text("notes\n"),
        half=True,
    ),
    Fault(
        "flipped checkpoint",
        lambda place: flipped(newest(place, OTHER)),
        ("can't be used (changed:", "the one before it is taken"),
        half=True,
    ),
    Fault(
        "blank manifest",
        lambda place: blank(newest(place, OTHER).parents[2] / "manifest.json"),
        ("can't be used",),
        half=True,
    ),
    Fault(
        "no checkpoint",
        lambda place: shutil.rmtree(place.work / OTHER / "checkpoints"),
        half=True,
    ),
    Fault(
        "other data",
        other_sound,
        ("other sounds under the same names: cat/0.wav", "another --workdir"),
        refused=True,
        mend=restore,
        half=True,
    ),
]
OTHERS = ("was trained on other data than these", "give the data it was trained on")
DATA = [
    Fault("renamed files", renamed, (*OTHERS, "lacks cat/", "adds cat/")),
    Fault("a renamed class", rename_class, (*OTHERS, "lacks cat and adds horse")),
    Fault("another sound", other_sound, (*OTHERS, "same names: cat/0.wav")),
    Fault("one clip more", one_more, (*OTHERS, "adds cat/new.wav")),
    Fault("one clip less", one_less, (*OTHERS, "lacks dog/5.wav")),
    Fault("a clip of another class", other_class, (*OTHERS, "adds cat/5.wav")),
]
FAULTS += HALF
FAULTS += [
    dataclasses.replace(
        fault, refused=True, mend=restore, more=("--config.sweep.seeds=0,1",)
    )
    for i, fault in enumerate(DATA)
]


def of_images(damage):
    return lambda place: damage(place.images)


def of_audio(damage):
    return lambda place: damage(place.shard)


IMAGES = ("the images kept in", "are computed anew")
PREPARED = ("the prepared audio in", "are prepared anew")
FAULTS += [
    Fault("flipped images", of_images(flipped), IMAGES, half=True),
    Fault("cut images", of_images(cut), IMAGES, half=True),
    Fault("empty images", of_images(emptied), IMAGES, half=True),
    Fault("no images", of_images(deleted), half=True),
    Fault("flipped sounds", of_audio(flipped), PREPARED, half=True),
    Fault("cut sounds", of_audio(cut), PREPARED, half=True),
    Fault("no sounds", of_audio(deleted), PREPARED, half=True),
    Fault(
        "blank sums of images",
        lambda place: blank(place.images.with_suffix(".json")),
        IMAGES,
        half=True,
    ),
    Fault("no prepared data", lambda place: shutil.rmtree(place.data), half=True),
]


def forget_config(place):
    deleted(place.work / "config.json")


FAULTS += [
    Fault(
        "three epochs asked for",
        forget_config,
        ("config.epochs: there 2, here 3", "another --workdir"),
        refused=True,
        more=("--config.epochs=3",),
    ),
    Fault("no locks", at(f"{ONE}/lock", deleted)),
]


# One of each kind; the others are left to `make test-all`.
FAST = {
    "flipped config.json",
    f"flipped {ONE}/predictions.npz",
    f"edited {OWN}",
    "newer config.json",
    "three epochs asked for",
    "renamed files",
    "a renamed class",
    "flipped checkpoint",
    "nothing tells the config",
    "flipped images",
    "flipped sounds",
}


def marked(faults):
    names = [fault.name for fault in faults]
    assert len(set(names)) == len(names)
    slow = [[] if name in FAST else [pytest.mark.slow] for name in names]
    return [
        pytest.param(fault, id=fault.name.replace(" ", "-"), marks=marks)
        for fault, marks in zip(faults, slow, strict=True)
    ]


def test_forty_faults_at_least():
    assert len(FAULTS) + len(READ) >= 40
    assert {fault.name for fault in FAULTS} >= FAST


def assert_no_traceback(err):
    assert "Traceback" not in err, err


@pytest.mark.parametrize("fault", marked(FAULTS))
def test_a_fault_gets_its_sentence_and_costs_no_bit(fault, place, finished, typed):
    if fault.half:
        halve(place)
    fault.act(place)
    before = content(place.work)
    status, out, err = typed("audiojax.main", *arguments(place, *fault.more))
    assert_no_traceback(err)
    for words in fault.says:
        assert words in err
    assert status == int(fault.refused), err
    if fault.refused:
        assert content(place.work) == before
        assert "%" not in out
        if fault.mend is None:
            return
        fault.mend(place, finished)
        status, _, err = typed("audiojax.main", *arguments(place))
        assert status == 0, err
    assert outcome(place.work) == outcome(finished.work)


# Reading only: evaluation and ensembles.

READ = [
    Fault(f"{damage.__name__} {name}", at(name, damage), (f"{name} is damaged",))
    for name in (f"{ONE}/result.json", f"{ONE}/predictions.npz")
    for damage in (cut, flipped)
] + [
    Fault("no predictions", at(f"{ONE}/predictions.npz", deleted), ("is missing",)),
    Fault("cut results.json", at("results.json", cut), ("results.json is damaged",)),
    Fault("edited", at(f"{ONE}/result.json", edited), ("result.json is damaged",)),
    Fault("edited results", at("results.json", edited), ("results.json is damaged",)),
]


@pytest.mark.parametrize("fault", marked(READ))
def test_evaluation_refuses_what_is_not_what_was_written(fault, place, typed, finished):
    fault.act(place)
    before = content(place.work)
    status, out, err = typed("audiojax.main", *arguments(place, "--mode=evaluate"))
    assert_no_traceback(err)
    assert (status, "%" in out) == (1, False), err
    assert all(words in err for words in (*fault.says, "again")), err
    assert content(place.work) == before
    assert typed("audiojax.main", *arguments(place))[0] == 0
    status, out, err = typed("audiojax.main", *arguments(place, "--mode=evaluate"))
    assert (status, "%" in out) == (0, True), err
    assert outcome(place.work) == outcome(finished.work)


def test_a_copied_workdir_is_the_same(place, finished, typed):
    """The place is a copy, data and all: it is evaluated, and averaged as it is."""
    before = content(place.work)
    status, _, err = typed("audiojax.main", *arguments(place, "--mode=evaluate"))
    assert status == 0, err
    scores = [
        typed("audiojax.ensemble", work)[1].splitlines()[1:]
        for work in (place.work, finished.work)
    ]
    assert scores[0] == scores[1]
    assert "%" in scores[0][-1]
    assert content(place.work) == before


@pytest.mark.slow
@pytest.mark.parametrize("damage", [emptied, cut, flipped, deleted])
def test_an_ensemble_refuses_damaged_predictions(damage, place, typed):
    at(f"{ONE}/predictions.npz", damage)(place)
    before = content(place.work)
    status, out, err = typed("audiojax.ensemble", place.work)
    assert_no_traceback(err)
    assert (status, "%" in out) == (1, False)
    assert all(words in err for words in (ONE, "predictions.npz", "makes it anew"))
    assert content(place.work) == before


@pytest.mark.slow
def test_an_ensemble_refuses_other_sounds_under_the_same_names(place, finished, typed):
    other_sound(place)
    shutil.rmtree(place.work)
    assert typed("audiojax.main", *arguments(place))[0] == 0
    status, out, err = typed("audiojax.ensemble", finished.work, place.work)
    assert (status, "%" in out) == (1, False)
    assert f"other sounds than {finished.work} has as cat/0.wav" in err
