"""The exceptions that are meant for people."""


class UserError(Exception):
    """A fault in what the user gave: one sentence that names the thing and what to do.

    `main` and `predict` print it and exit with status 2; anything else is a defect of ours.
    """


class Interrupted(Exception):
    """A signal ended the run after it was saved.

    Attributes:
      signal: its number; the commands exit with 128 more, as the shell expects.
      place: epoch and step, in words.
    """

    def __init__(self, signal: int, place: str) -> None:
        super().__init__(signal, place)
        self.signal = signal
        self.place = place

    def __str__(self) -> str:
        return f"interrupted in {self.place}; the same command goes on from there"
