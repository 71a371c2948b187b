import pytest

from audiojax import sounds


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded from here on."""
    decode, names = sounds.decode, []

    def counted(path, sample_rate):
        names.append(path.name)
        return decode(path, sample_rate)

    monkeypatch.setattr(sounds, "decode", counted)
    return names
