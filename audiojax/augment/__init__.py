"""Changes to sounds, their images and labels in training, as pure functions of a key.

`Augment` says what is done and how far, `changes` makes of it what a training step
calls. The functions that do it are in `waveforms`, `vocoder`, `images` and `mixing`;
each can be used alone, compiled or not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from audiojax.augment import images, mixing, waveforms
from audiojax.augment.rows import Change, Draw, Rows
from audiojax.errors import InputError

# Every change, in the order in which they are made where the config gives no other.
# A change draws by its number here, so what is drawn for it does not hang on which
# others there are.
WAVEFORMS = ("vocoder", "offset", "roll", "gain", "noise", "waveform_mixup")
IMAGES = ("shift", "time_mask", "mel_mask", "mixup", "cutmix")
CHANGES = WAVEFORMS + IMAGES


@dataclasses.dataclass(frozen=True)
class Augment:
    """What a training step does to sounds and images, and how far; 0 or () is off.

    Each clip gets a draw of its own at every step. Shares are of the width of a row, of
    the image's width (time) or of its height (mel bands).

    Attributes:
        order: names of changes, those of waveforms before those of images; () for the
            order of this list, in which time stretch and pitch shift are one change,
            "vocoder".
        clean_copy: every epoch holds each clip twice, once with all of these changes
            and once without any, as the paper does.
        pitch_shift: lowest and highest number of semitones; whole ones are drawn.
        time_stretch: smallest and largest rate; above 1 a sound gets shorter.
        offset: how far a sound may be moved in its row, as a share: what leaves the row
            is cut, zeros follow on the other side.
        roll: how far a sound may be rolled around in time; 1 lets it begin anywhere.
        gain: the most decibels by which a sound is made louder or softer.
        noise: lowest and highest signal-to-noise ratio in decibels of white noise.
        waveform_mixup: mixes sounds and labels in pairs, by shares from
            Beta(alpha, alpha); this is alpha.
        shift: the same as `roll`, of images.
        time_mask: the widest band of frames that is blotted out.
        mel_mask: the widest band of mel bands that is blotted out.
        num_masks: how many masks of each kind; 0 is one.
        mixup: the same as `waveform_mixup`, of images.
        cutmix: puts a piece of another clip's image, and its share of the label, into
            this one's, of a width from Beta(alpha, alpha); this is alpha.

    Raises:
        InputError: a value is out of range, or the order is not one.
    """

    order: tuple[str, ...] = ()
    clean_copy: bool = False
    pitch_shift: tuple[float, ...] = ()
    time_stretch: tuple[float, ...] = ()
    offset: float = 0.0
    roll: float = 0.0
    gain: float = 0.0
    noise: tuple[float, ...] = ()
    waveform_mixup: float = 0.0
    shift: float = 0.0
    time_mask: float = 0.0
    mel_mask: float = 0.0
    num_masks: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self):
        # Lists come from JSON.
        for name in ("order", "pitch_shift", "time_stretch", "noise"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("offset", "roll", "shift", "time_mask", "mel_mask"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise InputError(
                    f"config.augment.{name} is {share}; expected a share from 0 to 1"
                )
        for name in ("gain", "waveform_mixup", "num_masks", "mixup", "cutmix"):
            if not 0 <= (value := getattr(self, name)) < float("inf"):
                raise InputError(
                    f"config.augment.{name} is {value}; give at least 0, which is off"
                )
        for name, least, most in (
            ("pitch_shift", -12, 12),
            ("time_stretch", 0.5, 2),
            ("noise", -100, 100),
        ):
            ends = getattr(self, name)
            if ends and not (len(ends) == 2 and least <= ends[0] <= ends[1] <= most):
                raise InputError(
                    f"config.augment.{name} is {ends}; expected a lowest and a highest "
                    f"value within {least} and {most}, or () for off"
                )
        if any(end != round(end) for end in self.pitch_shift):
            raise InputError(
                f"config.augment.pitch_shift is {self.pitch_shift}; give whole "
                "semitones, as only such are drawn"
            )
        self._check_order()

    def _check_order(self) -> None:
        on = [name for name in CHANGES if self.is_on(name)]
        if self.order and not set(on) <= set(self.order) <= set(CHANGES):
            raise InputError(
                f"config.augment.order is {self.order}; it must name each change that "
                f"is on ({', '.join(on)}), and none but {', '.join(CHANGES)}"
            )
        stages = [name in IMAGES for name in self.order]
        if stages != sorted(stages) or len(set(self.order)) < len(self.order):
            raise InputError(
                f"config.augment.order is {self.order}; name each change once, and "
                f"those of waveforms ({', '.join(WAVEFORMS)}) before those of images"
            )

    def is_on(self, name: str) -> bool:
        """Whether the change of that name does anything."""
        if name == "vocoder":
            return bool(self.pitch_shift or self.time_stretch)
        return bool(getattr(self, name))

    @property
    def names(self) -> tuple[str, ...]:
        """The changes that are on, in their order."""
        return tuple(name for name in self.order or CHANGES if self.is_on(name))


@dataclasses.dataclass(frozen=True)
class Changes:
    """What a training step does to its batch, with the targets that go with it.

    Attributes:
        waveforms: changes of audio [B, T], before the log-mel, with their numbers.
        images: changes of images [B, mel, frames, C], after it, with theirs.
    """

    waveforms: Sequence[tuple[int, Change]] = ()
    images: Sequence[tuple[int, Change]] = ()


def changes(settings: Augment) -> Changes:
    """What the settings ask of a training step."""

    def numbered(names: Sequence[str]) -> list[tuple[int, Change]]:
        return [
            (CHANGES.index(name), _change(name, settings))
            for name in settings.names
            if name in names
        ]

    return Changes(numbered(WAVEFORMS), numbered(IMAGES))


def check_stage(settings: Augment, stage: str) -> None:
    """Checks that what is to be changed is there where `config.data.stage` says.

    Raises:
        InputError: if waveforms are to be changed and images alone are kept.
    """
    found = [name for name in settings.names if name in WAVEFORMS]
    if found and stage == "spectrogram":
        raise InputError(
            f"config.augment changes waveforms ({', '.join(found)}), and the stage "
            "'spectrogram' keeps images alone; set config.data.stage to audio"
        )


def apply(
    changes: Sequence[tuple[int, Change]],
    rows: Rows,
    keys: jax.Array,
    key: jax.Array,
    axis_name: str | None = None,
) -> Rows:
    """Makes changes one after the other, of the rows that are active.

    Args:
        changes: with the number that each draws by.
        rows: the batch, or a device's rows of it.
        keys: [B] of the rows.
        key: of the whole batch, the same on every device.
        axis_name: the device axis that shares the batch, or None.
    """
    for number, change in changes:
        row_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
        new = change(Draw(row_keys, jax.random.fold_in(key, number), axis_name), rows)
        rows = jax.tree.map(lambda n, o, on=rows.active: _where(on, n, o), new, rows)
    return rows


def _where(active: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    if new is old:
        return old
    return jnp.where(active.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _change(name: str, settings: Augment) -> Change:
    """The change of that name, as far as the settings say."""
    masks = max(settings.num_masks, 1)
    made: dict[str, Change] = {
        "vocoder": lambda draw, rows: rows.with_audio(
            *waveforms.stretch_and_shift(
                draw.keys,
                rows.values,
                rows.length,
                rows.active,
                settings.time_stretch or (1.0, 1.0),
                settings.pitch_shift or (0, 0),
            )
        ),
        "offset": lambda draw, rows: rows.with_audio(
            *waveforms.offset(draw.keys, rows.values, rows.length, settings.offset)
        ),
        "roll": lambda draw, rows: rows.with_audio(
            waveforms.roll(draw.keys, rows.values, rows.length, settings.roll)
        ),
        "gain": lambda draw, rows: rows.with_audio(
            waveforms.gain(draw.keys, rows.values, settings.gain)
        ),
        "noise": lambda draw, rows: rows.with_audio(
            waveforms.noise(draw.keys, rows.values, rows.length, settings.noise)
        ),
        "waveform_mixup": lambda draw, rows: mixing.mixup(
            draw, rows, settings.waveform_mixup
        ),
        "shift": lambda draw, rows: rows._replace(
            values=images.shift(draw.keys, rows.values, settings.shift)
        ),
        "time_mask": lambda draw, rows: rows._replace(
            values=images.mask(draw.keys, rows.values, settings.time_mask, masks, 1)
        ),
        "mel_mask": lambda draw, rows: rows._replace(
            values=images.mask(draw.keys, rows.values, settings.mel_mask, masks, 0)
        ),
        "mixup": lambda draw, rows: mixing.mixup(draw, rows, settings.mixup),
        "cutmix": lambda draw, rows: mixing.cutmix(draw, rows, settings.cutmix),
    }
    return made[name]
