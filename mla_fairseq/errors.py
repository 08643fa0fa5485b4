"""The one error that a command line shows to its user."""


class UserError(SystemExit):
    """What a user got wrong: one line that names the value and the mend.

    It is a ``SystemExit``: fairseq's commands, which show a traceback for every other exception, end with this line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(f"error: {message}")
