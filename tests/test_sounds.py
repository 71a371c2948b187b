import resource
import struct
import sys

import numpy as np
import pytest
import soundfile
import soxr

from audiojax import sounds
from audiojax.errors import InputError

RATE = 16000


def noise(seconds=0.5, rate=RATE):
    return np.random.default_rng(0).uniform(-0.7, 0.7, round(seconds * rate))


def test_16_bit_mono_comes_as_it_is_stored(tmp_path):
    stored = np.random.default_rng(0).integers(-32768, 32768, 4000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", stored, RATE, subtype="PCM_16")
    read = sounds.read(tmp_path / "a.wav", RATE)
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
    read = sounds.read(path, RATE)
    np.testing.assert_allclose(read, stored.mean(axis=1).clip(None, 32767), atol=0.5)


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_lossy_formats_give_what_soundfile_gives(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(), RATE)
    expected = (soundfile.read(path)[0] * 32768).clip(-32768, 32767)
    np.testing.assert_allclose(sounds.read(path, RATE), expected, atol=0.51)


def test_other_rates_are_resampled(tmp_path):
    path, sound = tmp_path / "a.wav", noise(rate=44100)
    soundfile.write(path, sound, 44100, subtype="FLOAT")
    expected = soxr.resample(sound.astype(np.float32), 44100, RATE) * 32768
    read = sounds.read(path, RATE)
    assert len(read) == pytest.approx(0.5 * RATE, abs=1)
    np.testing.assert_allclose(read, expected.clip(-32768, 32767), atol=0.51)


def test_a_little_above_full_scale_is_clipped(tmp_path):
    sound = np.array([0.0, 1.2, -1.2, 0.5])
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(
        sounds.read(tmp_path / "a.wav", RATE), [0, 32767, -32768, 16384]
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
        sounds.read(tmp_path / "a.wav", RATE)
    assert str(tmp_path / "a.wav") in str(error.value)


@pytest.mark.parametrize("name", ["a.wav", "a.ogg", "a.raw", "a.txt"])
@pytest.mark.parametrize("content", [b"", b"not a sound at all " * 50])
def test_what_is_no_sound_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is not a readable sound file"):
        sounds.read(tmp_path / name, RATE)


def test_missing_file_and_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(InputError, match="not a readable sound file"):
            sounds.read(path, RATE)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "au"])
def test_cut_files_are_refused(tmp_path, suffix, share):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    soundfile.write(whole, noise(2.0), RATE)
    assert len(sounds.read(whole, RATE)) >= 2 * RATE
    content = whole.read_bytes()
    cut.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"cut off|not a readable"):
        sounds.read(cut, RATE)


def wav(path, **fields):
    """Writes noise as WAV, some 32-bit numbers of its headers by hand."""
    soundfile.write(path, noise(), RATE, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    places = {"riff": 4, "rate": 24, "data": content.index(b"data") + 4}
    for name, value in fields.items():
        content[places[name] : places[name] + 4] = struct.pack("<I", value)
    path.write_bytes(content)
    return path


def flac(path, frames, sound):
    """Writes a sound as FLAC that claims so many samples (36 bits of its header)."""
    soundfile.write(path, sound, RATE, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    head = int.from_bytes(content[18:26], "big") >> 36 << 36
    content[18:26] = (head | frames).to_bytes(8, "big")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "claim", [0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFDB, 0xFFFFFFFF], ids=hex
)
def test_wav_of_unknown_length_is_read_to_its_end(tmp_path, claim):
    path = wav(tmp_path / "a.wav", data=claim, riff=min(claim + 36, 0xFFFFFFFF))
    assert len(sounds.read(path, RATE)) == len(noise())


@pytest.mark.parametrize("claim", [20000, 10**9, 2**31 + 2**16, 3 * 10**9], ids=str)
def test_wav_that_claims_too_much_is_cut_off(tmp_path, claim):
    path = wav(tmp_path / "a.wav", data=claim, riff=claim + 36)
    with pytest.raises(InputError, match=r"a\.wav is cut off: it ends after 0\.5"):
        sounds.read(path, RATE)


def most_memory():
    """The most that this process has taken so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (
            2**36 - 1,
            r"is cut off: its header tells of 4294967 seconds, which \d+ bytes",
        ),
        (10**9, "is cut off: its header tells of 62500 seconds"),
        (10**8, "is not a readable sound file"),
        (20_000, "is not a readable sound file"),
        (0, "does not tell how long it is"),
    ],
)
def test_flac_that_claims_too_much_asks_for_no_memory(tmp_path, frames, message):
    path = flac(tmp_path / "a.flac", frames, noise())
    before = most_memory()
    with pytest.raises(InputError, match=rf"a\.flac {message}"):
        sounds.read(path, RATE)
    assert most_memory() - before < 1 << 27


def test_what_packs_best_is_still_believed(tmp_path):
    """Silence in FLAC of 8 channels; nothing else has so few bytes a sample."""
    path = tmp_path / "a.flac"
    silence = np.zeros((40 * RATE, 8), np.int16)
    soundfile.write(path, silence, RATE, subtype="PCM_16")
    assert path.stat().st_size < silence.size / 300
    assert len(sounds.read(path, RATE)) == len(silence)


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (0, "not a readable sound file"),
        (1, "has 1 samples a second; 100 are the least"),
        (2**31, "not a readable sound file"),
    ],
)
def test_strange_rates_are_refused(tmp_path, rate, message):
    with pytest.raises(InputError, match=message):
        sounds.read(wav(tmp_path / "a.wav", rate=rate), RATE)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), r"\(MemoryError\(\)\)"),
        (RuntimeError("unknown error in the decoder"), "unknown error in the decoder"),
        (OverflowError("int too large"), "int too large"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "bad title"), "bad title"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("where", ["read", "resample"])
def test_whatever_a_decoder_raises_is_its_file_s_problem(
    tmp_path, monkeypatch, where, error, words
):
    def failing(*_, **__):
        raise error

    if where == "read":
        monkeypatch.setattr(soundfile.SoundFile, "read", failing)
    else:
        monkeypatch.setattr(soxr, "ResampleStream", failing)
    with pytest.raises(InputError, match=f"a.wav is not a readable .*{words}"):
        sounds.read(wav(tmp_path / "a.wav"), RATE // 2)


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
        assert sounds.decode(tmp_path / "a.wav", RATE).clipped == clipped


@pytest.mark.parametrize(
    ("name", "subtype", "loud"),
    [
        ("a.wav", "FLOAT", True),
        ("a.wav", "DOUBLE", True),
        ("a.aiff", "FLOAT", True),
        ("a.wav", "PCM_16", False),
        ("a.ogg", "VORBIS", False),
        ("a.mp3", "MPEG_LAYER_III", False),
    ],
)
def test_floats_above_full_scale_are_loud(tmp_path, name, subtype, loud):
    """Lossy formats overshoot a little; that is no one's mistake."""
    for peak, above in ((0.9, False), (1.0, False), (1.5, loud)):
        sound = np.sin(np.arange(RATE) / 20)
        sound *= peak / sound.max()
        soundfile.write(tmp_path / name, sound, RATE, subtype=subtype)
        assert sounds.decode(tmp_path / name, RATE).loud == above


@pytest.mark.parametrize("rate", [4000, 11025, 44100, 192000])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_the_shortest_sounds_leave_something(tmp_path, rate, size):
    soundfile.write(tmp_path / "a.wav", np.full(size, 0.5), rate)
    read = sounds.read(tmp_path / "a.wav", RATE)
    assert len(read) == pytest.approx(max(size * RATE / rate, 1), abs=1)
    assert len(read) >= 1


def test_a_file_that_is_no_local_one_is_read_whole(tmp_path, monkeypatch):
    """Where libsndfile can't open the path itself, as in a bucket."""
    for suffix in ("wav", "ogg", "flac", "mp3"):
        soundfile.write(tmp_path / f"a.{suffix}", noise(), RATE)
        expected = sounds.read(tmp_path / f"a.{suffix}", RATE)
        content = (tmp_path / f"a.{suffix}").read_bytes()
        for part, whole in ((content, True), (content[: len(content) // 2], False)):
            path = FakeRemote(part)
            monkeypatch.setattr(sounds.epath, "Path", lambda name, path=path: path)
            if whole:
                np.testing.assert_array_equal(sounds.read(path, RATE), expected)
            else:
                with pytest.raises(InputError, match=r"cut off|not a readable"):
                    sounds.read(path, RATE)


class FakeRemote:
    """A path that names a file of another machine, with its content."""

    def __init__(self, content):
        self.content = content

    def __fspath__(self):
        return "gs://bucket/a"

    def read_bytes(self):
        return self.content


@pytest.mark.parametrize("rate", [8000, RATE, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_blocks_are_the_sound_to_the_bit(tmp_path, monkeypatch, rate, channels):
    """However it is cut; its length is known before it is read."""
    path = tmp_path / "a.wav"
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (12347, channels))
    soundfile.write(path, samples, rate, subtype="FLOAT")
    mono = samples.astype(np.float32).mean(axis=1)
    resampled = mono if rate == RATE else soxr.resample(mono, rate, RATE)
    for block in (1000, 4096, 1 << 18):
        monkeypatch.setattr(sounds, "BLOCK", block)
        stream = sounds.Stream(path, RATE)
        blocks = list(stream.blocks())
        found = np.concatenate(blocks)
        assert stream.num_samples == len(found) == len(resampled)
        assert stream.seconds == 12347 / rate
        expected = np.rint(resampled * 32768).clip(-32768, 32767)
        np.testing.assert_array_equal(found, expected)
        assert max(map(len, blocks)) <= max(2 * block * RATE / rate, 1000)


def test_clipping_is_found_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(sounds, "BLOCK", 100)
    for start in (97, 98, 99, 150):
        sound = np.zeros(300)
        sound[start : start + 3] = 1
        soundfile.write(tmp_path / "a.wav", sound, RATE)
        assert sounds.decode(tmp_path / "a.wav", RATE).clipped
    sound = np.zeros(300)
    sound[[98, 99, 198]] = 1
    soundfile.write(tmp_path / "a.wav", sound, RATE)
    assert not sounds.decode(tmp_path / "a.wav", RATE).clipped


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_content_is_read_as_its_file(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(), 22050)
    content = sounds.Content("what was piped", path.read_bytes())
    expected = sounds.read(path, RATE)
    np.testing.assert_array_equal(sounds.read(content, RATE), expected)
    with pytest.raises(InputError, match="what was piped is not a readable sound"):
        sounds.read(sounds.Content("what was piped", b"no sound"), RATE)


def test_arrays_are_resampled_and_not_clipped():
    sound = 1.5 * noise(rate=44100)
    expected = soxr.resample(sound.astype(np.float32), 44100, RATE)
    np.testing.assert_array_equal(sounds.from_array(sound, 44100, RATE), expected)
    whole = np.array([-32768, 0, 16384], np.int16)
    np.testing.assert_array_equal(sounds.from_array(whole, RATE, RATE), [-1, 0, 0.5])
    assert len(sounds.from_array(np.ones(1), 48000, 8000)) == 1
