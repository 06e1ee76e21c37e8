"""Largest n whose cost is within a room, in closed form: costs that are straight lines between known turns."""

from bisect import bisect_right
from collections.abc import Callable, Iterable


class Curve:
    """A cost that never falls with n, from 1 to ``most``: straight between ``turns``, but for rounding unless ``exact``."""

    def __init__(self, cost: Callable[[int], int], turns: Iterable[int], most: int, *, exact: bool = False) -> None:
        self.cost, self.most, self.exact = cost, most, exact
        self.points = sorted({1, most} | {turn for turn in turns if 1 < turn < most})
        self.costs = [cost(n) for n in self.points]

    def largest(self, room: int) -> int:
        """The largest n that costs at most ``room``; 0 where not even 1 does."""
        index = bisect_right(self.costs, room) - 1
        if index < 0:
            return 0
        if index == len(self.points) - 1:
            return self.most
        low, high = self.points[index], self.points[index + 1]
        base, step = self.costs[index], self.costs[index + 1] - self.costs[index]
        n = low + (room - base) * (high - low) // step
        if self.exact:
            return n
        # Block formats round up to whole bytes, so a line may be off by a few bytes.
        while n > low and self.cost(n) > room:
            n -= 1
        while n + 1 < high and self.cost(n + 1) <= room:
            n += 1
        return n
