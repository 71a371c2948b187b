"""How a command ends early: by what its user can mend, or by a signal."""

from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """Something given by the user is wrong.

    The message says what was found, what was expected and what to do. Commands
    print it as one sentence and exit with status 1; a traceback would say less.
    """


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """A signal asked the run to stop; what it had done is saved.

    Attributes:
        signum: the signal's number.
    """

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum


def check_choice(field: str, value: object, known: Iterable[str]) -> None:
    """Checks that the value of a field of the config is a known one.

    Raises:
        InputError: if it is not; the known ones are listed.
    """
    if value not in (known := list(known)):
        raise InputError(f"{field} is {value!r}; choose one of {', '.join(known)}")


def listed(items: Iterable[object], between: str = "; ", limit: int = 10) -> str:
    """The first items as one phrase, and how many more there are."""
    texts = [str(item) for item in items]
    if len(texts) > limit:
        texts[limit:] = [f"and {len(texts) - limit} more"]
    return between.join(texts)


def difference(there: Sequence[str], here: Sequence[str]) -> str:
    """What names are missing and which came, as a phrase; empty for the same."""
    before, after = set(there), set(here)
    missing = [name for name in there if name not in after]
    extra = [name for name in here if name not in before]
    parts = [f"lacks {listed(missing, ', ')}"] * bool(missing)
    parts += [f"adds {listed(extra, ', ')}"] * bool(extra)
    return " and ".join(parts)
