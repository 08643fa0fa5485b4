"""The error that a command line shows to its user, in one line."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(SystemExit):
    """A user's mistake: one line that names the value and the fix.

    It is a ``SystemExit``: fairseq's commands, which show a traceback for every other exception, end with this line.
    """

    def __init__(self, message: str) -> None:
        one_line = message.strip().replace("\n", "\\n")  # values of files may have line breaks
        super().__init__(f"error: {one_line}")


def install(extra: str) -> str:
    """Return how to install the packages of an extra of pyproject.toml."""
    return f'install the extra {extra}: pip install -c constraints.txt ".[{extra}]" in a clone of mla_fairseq'


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Report a package that is missing inside the block, with the extra that installs it.

    Raises:
        UserError: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"{error}: {install(extra)}") from error


@contextmanager
def user_errors(before: str = "", types: tuple[type[Exception], ...] = (ValueError,)) -> Iterator[None]:
    """Turn exceptions inside the block into a line for the user of a command.

    Args:
        before: text in front of the message, such as the flag in question.
        types: exceptions whose message is for the user.

    Raises:
        UserError: one of them was raised.
    """
    try:
        yield
    except types as error:
        raise UserError(before + _message(error)) from error


def _message(error: Exception) -> str:
    """Return the message of an exception; that of a file name that no file system takes is long, and has no fix."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG and error.filename:
        name = os.path.basename(os.fsdecode(error.filename))
        return f"the file name is too long ({name[:40]}..., {len(os.fsencode(name))} bytes): use at most 200 bytes"
    return str(error)
