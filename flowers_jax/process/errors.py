"""The exceptions that are meant for people."""


class _Sentence(Exception):
    """Notebooks show the sentence instead of a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class UserError(_Sentence):
    """The user's input is at fault: one sentence names the thing and says what to do.

    The commands print it and exit with status 2. Any other exception is a defect of this package.
    """


class ResultsIncomplete(_Sentence):
    """A run is trained, and some of its results could not be written; the sentence names them."""


class Interrupted(_Sentence):
    """A signal ended the run after its state was saved.

    Attributes:
      signal: number of the signal; the commands exit with 128 more, as shells expect.
      place: epoch and step, in words.
    """

    def __init__(self, signal: int, place: str) -> None:
        super().__init__(signal, place)
        self.signal = signal
        self.place = place

    def __str__(self) -> str:
        return f"interrupted in {self.place}; the same command goes on from there"
