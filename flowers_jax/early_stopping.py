"""When to stop, and which epoch is best: the rule of Keras' `EarlyStopping`, as a value."""

import dataclasses
import math
from typing import Literal


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Stops when `patience` epochs in a row have not improved on the best one.

    Attributes:
      mode: 'max' if larger values are better, 'min' if smaller.
      patience: epochs to wait, at least 1.
      min_delta: by how much more a value must be better to count, >= 0.
      best_value: the best value so far, None before the first; NaN never counts as better.
      best_epoch: its epoch (from 1); the first of equals; 0 before the first update.
      wait: epochs since then.
      should_stop: true once the patience is used up.
    """

    mode: Literal["min", "max"]
    patience: int
    min_delta: float = 0.0
    best_value: float | None = None
    best_epoch: int = 0
    wait: int = 0
    should_stop: bool = False

    def update(self, epoch: int, value: float) -> "EarlyStopping":
        """The state after `epoch` (from 1) with the monitored `value`."""
        sign = 1 if self.mode == "max" else -1
        best = -math.inf if self.best_value is None else sign * self.best_value
        if sign * value - self.min_delta > best:
            return dataclasses.replace(self, best_value=value, best_epoch=epoch, wait=0)
        wait = self.wait + 1
        return dataclasses.replace(
            self,
            best_epoch=self.best_epoch or epoch,
            wait=wait,
            # Keras never stops after the first epoch.
            should_stop=self.should_stop or (wait >= self.patience and epoch > 1),
        )
