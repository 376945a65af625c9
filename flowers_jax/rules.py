"""What the values of settings must fulfil."""

import math
from collections.abc import Callable, Collection
from typing import Any

from ml_collections import ConfigDict

# What is wrong with a value, as the end of the sentence 'KEY=VALUE ...'; None if nothing is.
Rule = Callable[[Any], str | None]


def choice(names: Collection[str]) -> Rule:
    """One of these names, or of the entries that a table has when the value is checked."""
    return lambda value: (
        None if isinstance(value, str) and value in names else f"is not one of {', '.join(names)}"
    )


def kind(*types: type, name: str) -> Rule:
    """An instance of exactly one of these types: bool is not accepted as a number."""
    return lambda value: None if type(value) in types else f"is not {name}"


def number(*, above: float = -math.inf, least: float = -math.inf, below: float = math.inf) -> Rule:
    """A finite number in these bounds."""

    def rule(value: Any) -> str | None:  # noqa: ANN401
        if type(value) not in (int, float) or not math.isfinite(value):
            return "is not a number"
        if value < least:
            return f"must not be less than {least}"
        if value <= above:
            return f"must be greater than {above}"
        return None if value < below else f"must be less than {below}"

    return rule


def integer(least: int, below: float = math.inf) -> Rule:
    """A whole number in these bounds."""
    bounds = number(least=least, below=below)
    return lambda value: INTEGER(value) or bounds(value)


def class_weights(value: Any) -> str | None:  # noqa: ANN401
    """'balanced', or a positive number for each class."""
    positive = number(above=0)
    if value == "balanced" or (
        type(value) in (tuple, list) and value and not any(positive(v) for v in value)
    ):
        return None
    return "is neither 'balanced' nor a tuple of numbers above 0"


def names(value: Any) -> str | None:  # noqa: ANN401
    """A tuple or list of text."""
    is_list = type(value) in (tuple, list) and all(isinstance(name, str) for name in value)
    return None if is_list else "is not a tuple of names"


TEXT = kind(str, name="text")
FLAG = kind(bool, name="True or False")
INTEGER = kind(int, name="an integer")
GROUP = kind(ConfigDict, name="a group of settings")
# Of arguments of models, optimizers and augmentations; others take any value of their default's
# type.
ARGUMENTS: dict[str, Rule] = {
    **dict.fromkeys(
        ("beta_1", "beta_2", "rho", "momentum", "zoom", "conv_dropout"), number(least=0, below=1)
    ),
    "last_kernel": integer(1),
    **dict.fromkeys(
        ("initial_accumulator_value", "weight_decay", "rotation_degrees"), number(least=0)
    ),
    "epsilon": number(above=0),
}


def of_argument(name: str, default: Any) -> Rule:  # noqa: ANN401
    """The rule of an argument, by its name or else by the type of its default."""
    return ARGUMENTS.get(name) or like(default)


def like(default: Any) -> Rule:  # noqa: ANN401
    """A value of the type of `default`; any number for a number."""
    if type(default) in (int, float):
        return number()
    return FLAG if type(default) is bool else kind(type(default), name=type(default).__name__)
