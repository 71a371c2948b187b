"""The one exception for what a user can mend."""


class InputError(ValueError):
    """Something given by the user is wrong.

    The message says what was found, what was expected and what to do. Commands
    print it as one sentence and exit with status 1; a traceback would say less.
    """
