"""The one error that a command line shows to its user."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(SystemExit):
    """What a user got wrong: one line that names the value and the mend.

    It is a ``SystemExit``: fairseq's commands, which show a traceback for every other exception, end with this line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(f"error: {message}")


def install(extra: str) -> str:
    """How to get the packages of an extra of ``setup.py``."""
    return f'run pip install -c constraints.txt -e ".[{extra}]" in the folder of mla_fairseq'


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """At a command line's edge: where a package is missing that an extra of ``setup.py`` brings, says so."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"{error}: {install(extra)}") from error


@contextmanager
def user_errors(before: str = "", kinds: tuple[type[Exception], ...] = (ValueError,)) -> Iterator[None]:
    """At a command line's edge: an error inside that says what a user got wrong ends with its line.

    ``before`` is put in front of the message, such as the flag that it is about; ``kinds`` of errors say such things.
    """
    try:
        yield
    except kinds as error:
        raise UserError(before + str(error)) from error
