import pytest

from audiojax.datasets.store import audio


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded from here on."""
    decode, names = audio.decode, []

    def counted(path, sample_rate):
        names.append(path.name)
        return decode(path, sample_rate)

    monkeypatch.setattr(audio, "decode", counted)
    return names
