import os
import signal

import pytest

from audiojax.errors import Interrupted
from audiojax.training.signals import StopSignals

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def came():
    """Signals that reach the handlers which were there before."""
    numbers = []
    previous = {s: signal.signal(s, lambda n, _: numbers.append(n)) for s in BOTH}
    yield numbers
    for signum, handler in previous.items():
        signal.signal(signum, handler)


def test_nothing_is_asked_before_a_signal(came):
    with StopSignals() as signals:
        assert signals.signum == 0


@pytest.mark.parametrize("signum", BOTH)
def test_the_first_is_noted_and_a_second_acts_as_usual(came, signum):
    with StopSignals() as signals:
        os.kill(os.getpid(), signum)
        assert signals.signum == signum
        assert came == []
        os.kill(os.getpid(), signum)
        assert came == [signum]
        assert signals.signum == signum


def test_a_second_of_the_other_kind_acts_as_usual_too(came):
    """Ctrl-C after the scheduler's SIGTERM is an impatient user."""
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert came == [signal.SIGINT]
        assert signals.signum == signal.SIGTERM


def test_a_second_interrupt_is_pythons_own():
    def interrupt_twice():
        with StopSignals():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupt_twice()
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.mark.parametrize("error", [None, ValueError])
def test_handlers_are_as_before_after_the_block(came, error):
    before = [signal.getsignal(signum) for signum in BOTH]
    try:
        with StopSignals():
            assert [signal.getsignal(signum) for signum in BOTH] != before
            if error:
                raise error
    except ValueError:
        pass
    assert [signal.getsignal(signum) for signum in BOTH] == before
    assert came == []
    signal.raise_signal(signal.SIGTERM)
    assert came == [signal.SIGTERM]


@pytest.mark.parametrize("signum", BOTH)
def test_one_that_stopped_nothing_acts_as_usual_at_the_end(came, signum):
    """It came after the last step: the next run must not begin."""
    with StopSignals():
        signal.raise_signal(signum)
        assert came == []
    assert came == [signum]


def test_one_that_stopped_the_block_is_done_with(came):
    def stop():
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGTERM)
            raise Interrupted(signals.signum)

    with pytest.raises(Interrupted):
        stop()
    assert came == []
