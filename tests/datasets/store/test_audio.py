import struct
import threading

import numpy as np
import pytest
import soundfile
import soxr

from audiojax.datasets.store import audio
from audiojax.errors import InputError

RATE = 16000


def noise(seconds=0.5, rate=RATE):
    return np.random.default_rng(0).uniform(-0.7, 0.7, round(seconds * rate))


def test_16_bit_mono_comes_as_it_is_stored(tmp_path):
    stored = np.random.default_rng(0).integers(-32768, 32768, 4000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", stored, RATE, subtype="PCM_16")
    read = audio.read(tmp_path / "a.wav", RATE)
    assert read.dtype == np.int16
    np.testing.assert_array_equal(read, stored)


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", "PCM_24"), ("wav", "FLOAT"), ("flac", "PCM_16"), ("aiff", "PCM_16")],
)
def test_channels_are_averaged(tmp_path, suffix, subtype):
    path = tmp_path / f"a.{suffix}"
    stored = np.random.default_rng(0).integers(-32768, 32768, (4000, 2))
    sound = stored / 32768 if subtype == "FLOAT" else stored.astype(np.int16)
    soundfile.write(path, sound, RATE, subtype=subtype)
    read = audio.read(path, RATE)
    np.testing.assert_allclose(read, stored.mean(axis=1).clip(None, 32767), atol=0.5)


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_lossy_formats_give_what_soundfile_gives(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(), RATE)
    expected = (soundfile.read(path)[0] * 32768).clip(-32768, 32767)
    np.testing.assert_allclose(audio.read(path, RATE), expected, atol=0.51)


def test_other_rates_are_resampled(tmp_path):
    path, sound = tmp_path / "a.wav", noise(rate=44100)
    soundfile.write(path, sound, 44100, subtype="FLOAT")
    expected = soxr.resample(sound.astype(np.float32), 44100, RATE) * 32768
    read = audio.read(path, RATE)
    assert len(read) == pytest.approx(0.5 * RATE, abs=1)
    np.testing.assert_allclose(read, expected.clip(-32768, 32767), atol=0.51)


def test_a_little_above_full_scale_is_clipped(tmp_path):
    sound = np.array([0.0, 1.2, -1.2, 0.5])
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(
        audio.read(tmp_path / "a.wav", RATE), [0, 32767, -32768, 16384]
    )


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        (np.zeros(0), "is empty"),
        (np.array([0.0, np.nan, 0.1]), "not finite"),
        (np.array([0.0, np.inf, 0.1]), "not finite"),
        (np.array([0.0, 20000.0, -3.0]), "up to 20000; full scale is 1"),
    ],
)
def test_unusable_samples_are_refused(tmp_path, sound, message):
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match=message) as error:
        audio.read(tmp_path / "a.wav", RATE)
    assert str(tmp_path / "a.wav") in str(error.value)


@pytest.mark.parametrize("name", ["a.wav", "a.ogg", "a.raw", "a.txt"])
@pytest.mark.parametrize("content", [b"", b"not a sound at all " * 50])
def test_what_is_no_sound_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is not a readable sound file"):
        audio.read(tmp_path / name, RATE)


def test_missing_file_and_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(InputError, match="not a readable sound file"):
            audio.read(path, RATE)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "au"])
def test_cut_files_are_refused(tmp_path, suffix, share):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    soundfile.write(whole, noise(2.0), RATE)
    assert len(audio.read(whole, RATE)) >= 2 * RATE
    content = whole.read_bytes()
    cut.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"cut off|not a readable"):
        audio.read(cut, RATE)


def test_wav_of_unknown_length_is_read_to_its_end(tmp_path):
    path, sound = tmp_path / "a.wav", noise()
    soundfile.write(path, sound, RATE, subtype="PCM_16")
    content = path.read_bytes()
    at = content.index(b"data") + 4
    path.write_bytes(content[:at] + struct.pack("<I", 2**32 - 1) + content[at + 4 :])
    assert len(audio.read(path, RATE)) == len(sound)


def test_in_parallel_keeps_the_order_and_does_not_run_ahead():
    taken, lock = [], threading.Lock()

    def items():
        for item in range(1000):
            with lock:
                taken.append(item)
            yield item

    results = audio.in_parallel(lambda item: item * item, items())
    assert [next(results) for _ in range(10)] == [n * n for n in range(10)]
    assert len(taken) < 500
    assert list(results) == [n * n for n in range(10, 1000)]


def test_in_parallel_passes_errors_on():
    with pytest.raises(ZeroDivisionError):
        list(audio.in_parallel(lambda item: 1 // item, [1, 0, 1]))


@pytest.mark.parametrize(
    ("sound", "clipped"),
    [
        (np.tile([0.0, 1.0, 1.0, 1.0, 0.0], 50), True),
        (np.tile([0.0, -1.0, -1.0, -1.0, 0.0], 50), True),
        (np.tile([0.0, 1.0, 1.0, 0.0], 50), False),
        (np.tile([1.0, -1.0, 1.0, -1.0], 50), False),
        (np.full(100, 0.9), False),
        (np.ones(2), False),
    ],
)
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "FLOAT"])
def test_runs_near_full_scale_are_clipped(tmp_path, sound, clipped, subtype):
    quiet = np.zeros_like(sound)
    for columns in ([sound, quiet], [quiet, sound]):
        stereo = np.stack(columns, axis=1)
        soundfile.write(tmp_path / "a.wav", stereo, RATE, subtype=subtype)
        assert audio.decode(tmp_path / "a.wav", RATE).clipped == clipped


@pytest.mark.parametrize("rate", [4000, 11025, 44100, 192000])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_the_shortest_sounds_leave_something(tmp_path, rate, size):
    soundfile.write(tmp_path / "a.wav", np.full(size, 0.5), rate)
    read = audio.read(tmp_path / "a.wav", RATE)
    assert len(read) == pytest.approx(max(size * RATE / rate, 1), abs=1)
    assert len(read) >= 1


def test_a_file_that_is_no_local_one_is_read_whole(tmp_path, monkeypatch):
    """Where libsndfile can't open the path itself, as in a bucket."""
    for suffix in ("wav", "ogg", "flac", "mp3"):
        soundfile.write(tmp_path / f"a.{suffix}", noise(), RATE)
        expected = audio.read(tmp_path / f"a.{suffix}", RATE)
        content = (tmp_path / f"a.{suffix}").read_bytes()
        for part, whole in ((content, True), (content[: len(content) // 2], False)):
            path = FakeRemote(part)
            monkeypatch.setattr(audio.epath, "Path", lambda name, path=path: path)
            if whole:
                np.testing.assert_array_equal(audio.read(path, RATE), expected)
            else:
                with pytest.raises(InputError, match=r"cut off|not a readable"):
                    audio.read(path, RATE)


class FakeRemote:
    """A path that names a file of another machine, with its content."""

    def __init__(self, content):
        self.content = content

    def __fspath__(self):
        return "gs://bucket/a"

    def read_bytes(self):
        return self.content
