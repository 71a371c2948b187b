"""Which runs of a workdir are chosen, of workdirs made without training."""

import pytest

from audiojax import files, runs
from audiojax.errors import InputError
from audiojax.workdir import Run, Workdir
from tests import pages


@pytest.fixture
def workdir(tmp_path):
    """Two folds of two seeds, of which the last run is still to come."""
    folder = pages.make(tmp_path / "w")
    results = files.read_sealed(folder / "results.json", "")
    results["runs"] = results["runs"][:3]
    files.write_sealed(folder / "results.json", results)
    return Workdir(folder)


def test_all_of_what_is_finished(tmp_path):
    whole = Workdir(pages.make(tmp_path / "w"))
    everything = [Run(1, 0), Run(1, 1), Run(2, 0), Run(2, 1)]
    assert runs.choose(whole) == everything
    assert runs.choose(whole, folds=[2]) == everything[2:]
    assert runs.choose(whole, seeds=[1]) == everything[1::2]
    assert runs.choose(whole, [2], [0]) == [Run(2, 0)]


def test_what_is_not_finished_is_left_out_only_when_told(workdir):
    there = (
        "finished: fold1-seed0, fold1-seed1, fold2-seed0; not finished: fold2-seed1; "
        "fold2-seed1 can't be used yet"
    )
    for choice in ((), ([2],), (None, [1])):
        with pytest.raises(InputError, match=there):
            runs.choose(workdir, *choice)
    assert runs.choose(workdir, [1]) == [Run(1, 0), Run(1, 1)]
    assert runs.choose(workdir, [2], unfinished=True) == [Run(2, 0)]
    with pytest.raises(InputError, match="fold2-seed1 can't be used yet"):
        runs.choose(workdir, [2], [1], unfinished=True)


@pytest.mark.parametrize("unfinished", [False, True])
def test_what_is_not_there_is_named(workdir, unfinished):
    with pytest.raises(InputError, match="there is no fold 3, seed 5; choose others"):
        runs.choose(workdir, [1, 3], [0, 5], unfinished=unfinished)
