"""The one exception that is meant for people."""


class UserError(Exception):
    """A fault in what the user gave: one sentence that names the thing and what to do.

    `main` and `predict` print it and exit with status 2; anything else is a defect of ours.
    """
