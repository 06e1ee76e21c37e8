"""Fits values where they stand: each is moved up and down by a factor that shrinks, as long as that lowers the loss."""

from collections.abc import Callable, Collection


def descend(
    values: list[tuple[dict[str, float], str]], loss: Callable[[], float], shares: Collection[str], rounds: int
) -> None:  # fmt: skip
    """Move ``values`` in place; those named in ``shares`` stay at 1 or below. ``loss`` reads them anew at each call."""
    factor, best = 1.3, loss()
    for _ in range(rounds):
        moved = False
        for place, key in values:
            for by in (factor, 1 / factor):
                kept = place[key]
                place[key] = min(kept * by, 1.0) if key in shares else kept * by
                if (now := loss()) < best - 1e-6:
                    best, moved = now, True
                    break
                place[key] = kept
        if not moved:
            factor = 1 + (factor - 1) / 2
            if factor < 1.005:
                break
