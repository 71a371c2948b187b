"""SIGINT and SIGTERM as a request to save and stop."""

from __future__ import annotations

import signal
from typing import Any


class StopSignals:
    """Notes the first SIGINT or SIGTERM; a second one, of either, acts as usual.

    So does the first one at the end of the block, if that comes by itself: who noted
    it after the last step has stopped nothing.

    Attributes:
        signum: the signal's number, 0 while there was none.
    """

    def __init__(self):
        self.signum = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._previous[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._act_as_usual()
        usual = self._previous.get(self.signum)
        if kind is None and callable(usual):
            usual(self.signum, None)

    def _note(self, signum: int, _frame: object) -> None:
        self.signum = signum
        self._act_as_usual()

    def _act_as_usual(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
