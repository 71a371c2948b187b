import json

import pytest
from etils import epath

from audiojax.task import TASKS
from audiojax.training.progress import Progress, Scalars

TASK = TASKS["single_label"]


def metrics(loss_sum=2.0, correct=1.0, count=4.0, finite=True):
    return {"loss_sum": loss_sum, "correct": correct, "count": count, "finite": finite}


def test_means_are_over_the_clips_of_the_epoch():
    progress = Progress()
    assert progress.means() == {}
    progress.add(metrics(loss_sum=2.0, correct=1.0, count=4.0))
    progress.add(metrics(loss_sum=7.0, correct=2.0, count=2.0))
    assert progress.means() == {"loss": 9 / 6, "accuracy": 3 / 6}
    progress.next_epoch()
    assert progress.means() == {}


def test_skipped_steps_are_counted_in_a_row_and_in_nothing_else():
    progress = Progress()
    for finite in (False, False):
        progress.add(metrics(loss_sum=float("nan"), finite=finite))
    assert progress.skipped_in_a_row == 2
    progress.next_epoch()
    assert progress.skipped_in_a_row == 2
    progress.add(metrics())
    assert progress.skipped_in_a_row == 0
    assert progress.means() == {"loss": 0.5, "accuracy": 0.25}


@pytest.mark.parametrize(
    ("accuracy", "loss", "better"),
    [(0.8, 9.0, True), (0.7, 0.4, True), (0.7, 0.5, False), (0.6, 0.1, False)],
)
def test_the_best_epoch_has_the_most_right_then_the_least_loss(accuracy, loss, better):
    assert Progress().is_best({"accuracy": 0.0, "loss": 9.0}, TASK)
    progress = Progress(best={"epoch": 1, "validation": {"accuracy": 0.7, "loss": 0.5}})
    assert progress.is_best({"accuracy": accuracy, "loss": loss}, TASK) is better


def noted(progress, step, **values):
    """The progress with the scalars of one more moment."""
    progress.lines.append({"step": step, **values})
    return progress


def test_scalars_are_those_of_the_progress(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("left by a process that was killed later than its checkpoint\n")
    progress = noted(noted(Progress(), 5, loss=0.5), 10, loss=1.0)
    scalars = Scalars(epath.Path(tmp_path), progress, tensorboard=False)
    assert list(map(json.loads, path.read_text().splitlines())) == progress.lines
    noted(progress, 15, loss=0.25)
    scalars.write()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 5, "loss": 0.5},
        {"step": 10, "loss": 1.0},
        {"step": 15, "loss": 0.25},
    ]


def test_tensorboard_reads_what_is_written(tmp_path):
    from tensorboard.backend.event_processing import event_accumulator

    progress = Progress()
    scalars = Scalars(epath.Path(tmp_path), progress, tensorboard=True)
    noted(progress, 3, loss=0.5)
    scalars.write()
    scalars.close()
    events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    (tag,) = events.Tags()["tensors"] or events.Tags()["scalars"]
    assert tag == "loss"
