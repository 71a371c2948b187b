import pytest

from audiojax.datasets.store import beam, prepare
from audiojax.errors import InputError
from tests import sound_tree


@pytest.fixture
def arguments(tmp_path):
    """For a small ESC-50 in `tree`, and `prepared`, at the rate of the tests."""
    sound_tree.make_tree(tmp_path / "tree")
    return [
        "--name=esc50",
        f"--source_dir={tmp_path / 'tree'}",
        f"--data_dir={tmp_path / 'prepared'}",
        f"--sample_rate={sound_tree.SAMPLE_RATE}",
    ]


def test_what_is_not_known_here_goes_to_the_pipeline(
    arguments, tmp_path, monkeypatch, capsys
):
    calls = []

    def with_beam(*given):
        calls.append(given)
        return tmp_path

    monkeypatch.setattr(prepare, "with_beam", with_beam)
    beam.main([*arguments, "--runner=DirectRunner", "--direct_num_workers=2"])
    ((table, settings, options),) = calls
    assert len(table.clips) == 12
    assert settings == sound_tree.settings(tmp_path / "tree", tmp_path / "prepared")
    assert options == ["--runner=DirectRunner", "--direct_num_workers=2"]
    assert f"12 files are prepared in {tmp_path}" in capsys.readouterr().out


def test_fetching_takes_no_other_arguments(arguments, tmp_path, capsys):
    fetching = [*arguments, f"--fetch_from={tmp_path / 'bucket'}"]
    with pytest.raises(SystemExit):
        beam.main([*fetching, "--runner=DirectRunner"])
    assert "unknown arguments: --runner=DirectRunner" in capsys.readouterr().err
    with pytest.raises(InputError, match="holds no esc50 at 16000 Hz"):
        beam.main(fetching)


def test_data_sets_without_files_are_not_offered(capsys):
    with pytest.raises(SystemExit):
        beam.main(["--name=synthetic"])
    assert "'esc50'" in capsys.readouterr().err
