import collections

import numpy as np
import pytest
import soundfile

from audiojax import datasets
from audiojax.datasets.layouts import gtzan
from audiojax.errors import InputError
from tests import sound_tree

RATE = 22050
COUNT = 10  # clips of each genre
# In jazz, so that the file that is broken as published can be there.
FIRST = {"jazz": 50}


def names(genre, suffix="wav"):
    first = FIRST.get(genre, 0)
    return [f"{genre}.{n:05d}.{suffix}" for n in range(first, first + COUNT)]


def make_tree(folder, suffix="wav"):
    """Writes the genres' folders, each with `COUNT` sounds of a twentieth second."""
    rng = np.random.default_rng(0)
    for genre in gtzan.GENRES:
        (folder / genre).mkdir(parents=True)
        for name in names(genre, suffix):
            sound = rng.uniform(-0.5, 0.5, RATE // 20)
            soundfile.write(folder / genre / name, sound, RATE)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("GTZAN")
    make_tree(folder / "genres")
    return folder


@pytest.fixture
def tree(whole, tmp_path):
    """A copy to be spoilt, of links."""
    folder = tmp_path / "tree"
    for path in whole.glob("*/*/*.wav"):
        link = folder / path.relative_to(whole)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    return folder


def read(folder, **options):
    return gtzan.read(sound_tree.settings(folder, folder, sample_rate=RATE, **options))


def load(folder, data_dir, **options):
    settings = sound_tree.settings(folder, data_dir, sample_rate=RATE, **options)
    return datasets.load("gtzan", settings)


def folds(table):
    return {row.filename: row.fold for row in table.clips}


def write_lists(folder, **lists):
    """Writes {"test_filtered": lines} as `.txt` files; gives the folder's name."""
    folder.mkdir(exist_ok=True)
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return str(folder)


def published(slices):
    """Lines of each of {"train": slice, ...} of every genre."""
    return {
        f"{part}_filtered": [
            f"{genre}/{name}" for genre in gtzan.GENRES for name in names(genre)[chosen]
        ]
        for part, chosen in slices.items()
    }


def test_a_fifth_of_every_genre_is_held_out_the_same_each_time(whole, tmp_path):
    info = load(whole, tmp_path).info
    assert info.classes == gtzan.GENRES
    counts = collections.Counter((clip.label, clip.fold) for clip in info.clips)
    assert counts == {(k, f): {1: 2, 2: 8}[f] for k in range(10) for f in (1, 2)}
    assert not info.official_folds
    assert info.report == {}
    table = read(whole)
    assert folds(table) == {clip.filename: clip.fold for clip in info.clips}
    assert folds(read(whole, seed=1)) != folds(table)
    assert [row.filename for row in table.clips] == sorted(folds(table))
    labels = {row.filename: row.labels for row in table.clips}
    assert labels["jazz/jazz.00050.wav"] == (5,)


def test_folds_can_be_made_by_genre(whole, tmp_path):
    info = load(whole, tmp_path, split="stratified", num_folds=5).info
    counts = collections.Counter((clip.label, clip.fold) for clip in info.clips)
    assert counts == {(k, f): 2 for k in range(10) for f in range(1, 6)}


@pytest.mark.parametrize(
    ("place", "suffix"), [("genres_original", "wav"), ("", "au"), ("genres", "flac")]
)
def test_other_places_and_formats(tmp_path, place, suffix):
    make_tree(tmp_path / "tree" / place, suffix)
    recordings = load(tmp_path / "tree", tmp_path / "store")
    assert len(recordings) == 10 * COUNT
    assert recordings.info.clips[0].filename == f"blues/blues.00000.{suffix}"
    assert set(recordings.lengths) == {RATE // 20}


def test_few_genres_count_themselves(tree, caplog):
    for genre in gtzan.GENRES[3:]:
        for path in (tree / "genres" / genre).iterdir():
            path.unlink()
    with caplog.at_level("INFO"):
        table = read(tree)
    assert table.classes == gtzan.GENRES[:3]
    assert "30 clips, not 1000" in caplog.text


def test_the_broken_file_is_left_out_with_a_warning(tree, tmp_path, caplog):
    broken = tree / "genres" / "jazz" / "jazz.00054.wav"
    content = broken.read_bytes()
    broken.unlink()
    broken.write_bytes(b"\0" * 1000)
    recordings = load(tree, tmp_path / "store")
    assert len(recordings) == 10 * COUNT - 1
    assert list(recordings.info.report["skipped"]) == ["jazz/jazz.00054.wav"]
    assert "1 clips can't be used and are left out" in caplog.text
    broken.write_bytes(content)  # a mended one is used
    assert len(load(tree, tmp_path / "store")) == 10 * COUNT


def test_any_other_broken_file_is_an_error(tree, tmp_path):
    path = tree / "genres" / "rock" / "rock.00003.wav"
    path.unlink()
    path.write_bytes(b"\0" * 1000)
    with pytest.raises(InputError, match=r"1 of 100 sound files.*rock\.00003"):
        load(tree, tmp_path / "store")


def test_published_lists_make_the_folds(whole, tmp_path, caplog):
    lines = published({"test": slice(0, 2), "valid": slice(2, 4), "train": slice(4, 9)})
    lists = write_lists(tmp_path / "lists", **lines)
    info = load(whole, tmp_path / "store", split_dir=lists).info
    expected = {
        line: fold
        for fold, part in enumerate(("test", "valid", "train"), 1)
        for line in lines[f"{part}_filtered"]
    }
    assert {clip.filename: clip.fold for clip in info.clips} == expected
    assert info.official_folds
    left_out = [f"{genre}/{names(genre)[9]}" for genre in gtzan.GENRES]
    assert info.report == {"not_listed": left_out}
    assert "10 clips are on no list and are left out" in caplog.text


def test_lists_of_two_parts_in_other_words(whole, tmp_path):
    """Other formats, other folders or none, CRLF, a byte-order mark, blank lines."""
    lines = published({"test": slice(0, 2), "train": slice(2, 10)})
    test, train = lines.values()
    test = [f"genres\\{line}".replace(".wav", ".mp3") for line in test]
    train = [line.partition("/")[2].removesuffix(".wav") for line in train]
    folder = tmp_path / "lists"
    write_lists(folder, test=["", *test, "  "])
    content = "\r\n".join(f"{line} " for line in train).encode()
    (folder / "train.txt").write_bytes(b"\xef\xbb\xbf" + content)
    table = read(whole, split_dir=str(folder))
    assert collections.Counter(folds(table).values()) == {1: 20, 2: 80}
    assert folds(table)["pop/pop.00001.wav"] == 1
    assert table.report == {}


def test_the_broken_file_may_be_listed_and_absent(tree, tmp_path, caplog):
    (tree / "genres" / "jazz" / "jazz.00054.wav").unlink()
    lines = published({"test": slice(0, 2), "train": slice(2, 10)})
    lists = write_lists(tmp_path / "lists", **lines)
    table = read(tree, split_dir=lists)
    assert table.report == {"missing": ["jazz.00054"]}
    assert "1 clips are listed and not there: jazz.00054" in caplog.text


@pytest.mark.parametrize(
    ("part", "line", "message"),
    [
        ("test", "rock/rock.00077.wav", "test.txt line 11: there is no rock.00077"),
        ("test", "rock/rock.1.wav", "test.txt line 11: 'rock/rock.1.wav' is no clip"),
        ("test", "polka/polka.00001.wav", "'polka/polka.00001.wav' is no clip"),
        ("test", "jazz/rock.00001.wav", "'jazz/rock.00001.wav' has two genres"),
        (
            "test",
            "rock/rock.00005.wav",
            "rock.00005 is listed in test.txt line 11 and in train.txt line 86",
        ),
        (
            "train",
            "rock/rock.00009.au",
            "rock.00009 is listed in train.txt line 90 and in train.txt line 91",
        ),
    ],
)
def test_faulty_lists_are_refused(whole, tmp_path, part, line, message):
    lines = published({"test": slice(0, 1), "train": slice(1, 10)})
    lines = {name.removesuffix("_filtered"): value for name, value in lines.items()}
    lines[part].append(line)
    lists = write_lists(tmp_path / "lists", **lines)
    with pytest.raises(InputError) as error:
        read(whole, split_dir=lists)
    assert "has 1 faults" in str(error.value)
    assert message in str(error.value)


def test_lists_must_be_there_once(whole, tmp_path):
    lists = write_lists(tmp_path / "lists", test=["rock/rock.00001.wav"])
    with pytest.raises(InputError, match=r"none of train_filtered.txt or train.txt"):
        read(whole, split_dir=lists)
    write_lists(tmp_path / "lists", train=[], train_filtered=[])
    with pytest.raises(InputError, match=r"train_filtered.txt and train.txt; keep"):
        read(whole, split_dir=lists)
    (tmp_path / "lists" / "train.txt").unlink()
    (tmp_path / "lists" / "train_filtered.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not a list of clips"):
        read(whole, split_dir=lists)


def test_two_kinds_of_split_are_refused(whole, tmp_path):
    with pytest.raises(InputError, match="give one of them"):
        read(whole, split_dir=str(tmp_path), split="stratified")


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(InputError, match=r"needs config\.data\.source_dir"):
        gtzan.read(datasets.Settings(sample_rate=RATE))
    with pytest.raises(InputError, match="is not a folder; give GTZAN's"):
        read(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"has no folder of a genre \(blues/"):
        read(tmp_path)


def test_what_is_no_clip_is_told(tree, caplog):
    for name in ("notes.txt", "._rock.00001.wav", "rock.00001", "rock.001.wav"):
        (tree / "genres" / "rock" / name).write_bytes(b"")
    table = read(tree)
    assert len(table.clips) == 10 * COUNT
    assert table.report == {
        "no_clips": ["rock/notes.txt", "rock/rock.00001", "rock/rock.001.wav"]
    }
    assert "3 files are no clips by their names" in caplog.text


def test_strays_and_clips_in_two_formats_are_refused(tree):
    (tree / "genres" / "rock" / "jazz.00001.wav").write_bytes(b"")
    (tree / "genres" / "rock" / "rock.00001.au").write_bytes(b"")
    with pytest.raises(InputError) as error:
        read(tree)
    message = str(error.value)
    assert "rock/jazz.00001.wav is named for another genre" in message
    assert "rock.00001 comes 2 times" in message
