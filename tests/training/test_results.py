import dataclasses

import numpy as np
import pytest
from etils import epath

from audiojax import config as configs
from audiojax import files
from audiojax.datasets import Info
from audiojax.datasets.layouts import synthetic
from audiojax.errors import InputError
from audiojax.training import results
from audiojax.workdir import Entry, Predictions, Run
from tests import tiny

INFO = Info("made", ("a", "b"), 22050, ())


def entry(fold, seed, accuracy, **more):
    final = {"accuracy": accuracy, "loss": 1.0, "num_clips": 4}
    numbers = {"steps": 10, "skipped_steps": 0, "seconds": 1.5}
    return Entry(Run(fold, seed), final=final, **numbers, **more)


def predicted(margins, label=(0, 0, 1, 1)):
    """Logits of which the first is larger by so much than the second."""
    logits = np.stack([np.asarray(margins), np.zeros(4)], axis=1)
    return Predictions(logits, np.array(label), np.array(["a", "b", "c", "d"]))


def test_summary_is_arithmetic_over_seeds_and_folds():
    """Two seeds that are wrong in different places, so that the mean is right."""
    runs = [entry(1, 0, 0.75), entry(1, 1, 0.75), entry(2, 0, 0.5)]
    predictions = [
        predicted([3, -1, -2, -2]),
        predicted([-1, 3, -2, -2]),
        predicted([1, -1, 1, -1]),
    ]
    found = results.summarize(tiny.get_config(), INFO, runs, predictions)
    first, second = found["folds"]
    assert (first["single"], first["single_std"]) == (0.75, 0.0)
    assert (first["ensemble"], first["gain"]) == (1.0, 0.25)
    assert (second["ensemble"], second["gain"]) == (0.5, 0.0)
    assert first["seeds"] == [0, 1]
    assert found["summary"]["single"] == {"mean": 0.625, "std": 0.125}
    assert found["summary"]["ensemble"] == {"mean": 0.75, "std": 0.25}
    assert found["summary"]["gain"] == {"mean": 0.125, "std": 0.125}
    assert "best" not in found["summary"]


def test_best_epochs_and_raw_parameters_are_averaged_beside_the_last():
    best = [{"accuracy": value, "epoch": 3} for value in (0.9, 0.7)]
    raw = [{"accuracy": value} for value in (0.25, 0.5)]
    runs = [entry(1, i, 0.5, best=best[i], raw=raw[i]) for i in (0, 1)]
    predictions = [predicted([1, -1, 1, -1])] * 2
    found = results.summarize(tiny.get_config(), INFO, runs, predictions)
    assert found["folds"][0]["best"] == pytest.approx(0.8)
    assert found["summary"]["best"] == {"mean": pytest.approx(0.8), "std": 0.0}
    assert found["summary"]["raw"] == {"mean": pytest.approx(0.375), "std": 0.0}
    assert Entry.from_json(found["runs"][0]).raw == raw[0]
    header, row = (line.split() for line in results.table(found).splitlines()[:2])
    assert header == ["fold", "single", "raw", "best", "ensemble"]
    assert row == ["1", "50.00%", "37.50%", "80.00%", "50.00%"]


def test_results_hold_every_finished_run_of_the_workdir(tmp_path):
    workdir = epath.Path(tmp_path)
    for fold, seed in ((10, 0), (2, 1), (2, 0)):
        folder = workdir / f"fold{fold}-seed{seed}"
        arrays = dataclasses.asdict(predicted([1, 1, -1, -1]))
        files.write_arrays(folder / "predictions.npz", arrays)
        files.write_json(folder / "result.json", entry(fold, seed, 1.0).to_json())
    (workdir / "fold3-seed0" / "checkpoints").mkdir(parents=True)
    written = results.Results(tiny.get_config(), INFO, workdir).write()
    names = [run["name"] for run in written["runs"]]
    assert names == ["fold2-seed0", "fold2-seed1", "fold10-seed0"]
    assert files.read_sealed(workdir / "results.json", "") == written


def test_nothing_finished_is_an_empty_table(tmp_path):
    written = results.Results(tiny.get_config(), INFO, epath.Path(tmp_path)).write()
    assert written["runs"] == written["folds"] == []
    assert "fold" in results.table(written)


@pytest.mark.parametrize("field", ["sweep.seeds", "parallel", "data.source_dir"])
def test_where_and_how_may_change(tmp_path, field):
    workdir = epath.Path(tmp_path)
    config = tiny.get_config()
    recordings = synthetic.create(num_folds=2, clips_per_class=1)
    results.write_described(config, recordings, workdir)
    results.write_described(config, recordings, workdir / "fold1-seed0")
    *parents, name = field.split(".")
    part = config[parents[0]] if parents else config
    part[name] = {"seeds": (7,)}.get(name, "elsewhere")
    results.check_config(config, workdir)


# Fields that configs have not always had, and how it was without them.
EARLIER = {
    "optimizer.decay": "kernels",
    "optimizer.clip_norm": 0.0,
    "optimizer.head_factor": 1.0,
    "optimizer.layer_decay": 1.0,
    "optimizer.label_smoothing": 0.0,
    "optimizer.ema_decay": 0.0,
    "accumulate": 1,
}


@pytest.mark.parametrize("field", [None, *EARLIER])
def test_a_workdir_of_before_goes_on_with_what_was_off(tmp_path, field):
    """That of AdamW, which spared biases; and is refused with what was not."""
    workdir, config = epath.Path(tmp_path), tiny.get_config()
    recordings = synthetic.create(num_folds=2, clips_per_class=1)
    older = config.copy_and_resolve_references()
    for name, value in EARLIER.items():
        *part, last = name.split(".")
        assert (config[part[0]] if part else config)[last] == value
        del (older[part[0]] if part else older)[last]
    for folder in (workdir, workdir / "fold1-seed0"):
        results.write_described(older, recordings, folder)
    results.check_config(config, workdir)
    if field:
        other = {"optimizer.decay": "all", "accumulate": 2}.get(field, 0.5)
        with pytest.raises(
            InputError, match=rf"config.{field}: there .*here {other!r}"
        ):
            results.check_config(configs.at(config, {field: other}), workdir)


def test_table_holds_folds_mean_and_deviation():
    found = {
        "metric": "accuracy",
        "folds": [{"fold": 1, "seeds": [0], "single": 0.9, "ensemble": 0.925}],
        "summary": {
            "single": {"mean": 0.9, "std": 0.0},
            "ensemble": {"mean": 0.925, "std": 0.0},
        },
    }
    rows = [line.split() for line in results.table(found).splitlines()]
    assert rows[1] == ["1", "90.00%", "92.50%"]
    assert rows[2] == ["mean", "90.00%", "92.50%"]
    assert rows[3] == ["std", "0.00%", "0.00%"]
