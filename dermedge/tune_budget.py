"""How long tuning may take, and which executions still fit into that time."""

from __future__ import annotations

import math
from collections.abc import Callable

_MARGIN = 1.2  # times as long as so far a round may take before the time is over


class TimeOver(Exception):
    """The time of a network's tuning is over."""


class Budget:
    """The time of one network. What an execution costs is learnt from those before it."""

    def __init__(self, clock: Callable[[], float], end: float = math.inf):
        """`end` : what `clock` says when the time is over, s; infinite: it never is."""
        self._clock, self._end = clock, end
        self._dearest = 0.0  # s to open and check one execution
        self._slowest = 0.0  # s of its one run
        self._round = 0.0  # s of one round of all that are in

    @property
    def limited(self) -> bool:
        """Whether the time is over at some point."""
        return self._end < math.inf

    def check(self) -> None:
        """Raise TimeOver where the time is over."""
        if self._clock() >= self._end:
            raise TimeOver

    def fits(self, rounds: int) -> bool:
        """Whether one more like the dearest so far can be checked, and all timed for so long."""
        needed = self._dearest + (self._round + self._slowest) * rounds * _MARGIN
        return self._left() > needed

    def admit(self, seconds: float, run: float, rounds: int) -> bool:
        """Count an execution that took `seconds` to open and check, and `run` s for one picture.

        Whether all that are in can still be timed with it; where not, it is not in.
        """
        self._dearest = max(self._dearest, seconds)
        self._slowest = max(self._slowest, run)
        if (self._round + run) * rounds * _MARGIN > self._left():
            return False
        self._round += run
        return True

    def timing(self, seconds: float) -> float:
        """Of `seconds` those for which rounds may begin, so that the last ends in time."""
        return max(0.0, min(seconds, self._left() - self._round * _MARGIN))

    def _left(self) -> float:
        return self._end - self._clock()
