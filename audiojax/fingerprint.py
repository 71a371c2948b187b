"""Which data a workdir was trained on, and how other data differ from them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from audiojax.errors import difference, listed


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """A data set as far as results hang on it; not where its files lie.

    Attributes:
        name: of the data set.
        sample_rate: of its audio, in Hz.
        classes: names, in the order of the class numbers.
        clips: of each clip its filename, class names, fold, source recording, and a sum
            of its samples at that rate.
    """

    name: str
    sample_rate: int
    classes: tuple[str, ...]
    clips: tuple[tuple[str, tuple[str, ...], int, str, str], ...]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Fingerprint:
        """Reads what `to_json` gave."""
        clips = tuple(
            (name, tuple(labels), fold, source, digest)
            for name, labels, fold, source, digest in content["clips"]
        )
        fields = {name: content[name] for name in ("name", "sample_rate")}
        return cls(**fields, classes=tuple(content["classes"]), clips=clips)

    def to_json(self) -> dict[str, Any]:
        """The fingerprint as JSON holds it."""
        return vars(self)

    @property
    def sha256(self) -> str:
        """A hex string that is the same for the same data only."""
        return hashlib.sha256(json.dumps(vars(self)).encode()).hexdigest()

    def other_sounds(self, there: Fingerprint) -> list[str]:
        """The clips that have another sound there under the same name.

        At another sample rate all samples differ, and none is compared.
        """
        theirs = {clip[0]: clip[-1] for clip in there.clips}
        if self.sample_rate != there.sample_rate:
            return []
        return [
            name
            for name, *_, digest in self.clips
            if theirs.get(name, digest) != digest
        ]

    def differs(self, there: Fingerprint) -> str:
        """How these data differ from those there, as a phrase; empty for the same."""
        phrases = []
        for what in ("name", "sample_rate"):
            here, other = getattr(self, what), getattr(there, what)
            if here != other:
                phrases.append(f"its {what} is {here!r}, there {other!r}")
        if self.classes != there.classes:
            changed = difference(there.classes, self.classes) or "has another order"
            phrases.append(f"of the classes it {changed}")
        ours = {clip[0]: clip[1:] for clip in self.clips}
        theirs = {clip[0]: clip[1:] for clip in there.clips}
        if changed := difference(list(theirs), list(ours)):
            phrases.append(f"of the clips it {changed}")
        shared = [name for name in ours if name in theirs]
        for place, what in enumerate(("class", "fold", "recording")):
            moved = [
                f"{name} is {_text(ours[name][place])}, "
                f"there {_text(theirs[name][place])}"
                for name in shared
                if ours[name][place] != theirs[name][place]
            ]
            if moved:
                phrases.append(f"in another {what}: {listed(moved)}")
        if changed := self.other_sounds(there):
            phrases.append(f"other sounds under the same names: {listed(changed)}")
        if not phrases and list(ours) != list(theirs):
            phrases.append("the same clips in another order")
        return "; ".join(phrases)


def _text(value: object) -> str:
    return " and ".join(value) or "none" if isinstance(value, tuple) else str(value)
