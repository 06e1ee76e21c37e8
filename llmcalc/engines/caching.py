"""torch's caching allocator, followed block by block (c10/cuda/CUDACachingAllocator.cpp, its defaults).

Sizes are rounded to 512 bytes. A request up to 1 MiB comes from segments of 2 MiB, one under 10 MiB from segments of 20 MiB, a
larger one has a segment of its own, rounded to 2 MiB. A free block of the same pool that is large enough is taken before a new
segment, the smallest of them; what is left of it is a block again, if it is more than 1 MiB (512 bytes in the small pool). Free
neighbours of a segment are joined. Segments go back to the driver only when the GPU is full, all that are free at once. Each
stream has pools of its own.
"""

from bisect import bisect_left, insort

MIB = 1 << 20
ROUND, SMALL, SMALL_SEGMENT, LARGE, LARGE_SEGMENT = 512, MIB, 2 * MIB, 10 * MIB, 20 * MIB


class Block:
    """A part of a segment."""

    __slots__ = ("address", "after", "before", "free", "pool", "size")

    def __init__(self, size: int, address: int, pool: tuple[str, bool]) -> None:
        self.size, self.address, self.pool, self.free = size, address, pool, False
        self.before: Block | None = None
        self.after: Block | None = None


class Allocator:
    """``allocated`` is what is in use, ``reserved`` what has been got from the driver, ``peak`` and ``most`` the highest of each.
    ``limit`` is what the driver has, 0 for as much as is asked for."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.allocated = self.reserved = self.peak = self.most = 0
        self.blocks: dict[object, list[Block]] = {}
        self.left: dict[object, list[Block]] = {}
        self.frees: dict[tuple[str, bool], list[tuple[int, int]]] = {}
        self.at: dict[int, Block] = {}
        self.end = 0

    def take(self, thing: object, size: int, stream: str = "") -> None:
        """Memory for a thing, which may be taken in several pieces."""
        size = max(-(-size // ROUND) * ROUND, ROUND)
        pool = (stream, size <= SMALL)
        free = self.frees.setdefault(pool, [])
        index = bisect_left(free, (size, 0))
        if index < len(free):
            block = self.at[free.pop(index)[1]]
        else:
            whole = SMALL_SEGMENT if size <= SMALL else LARGE_SEGMENT if size < LARGE else -(-size // SMALL_SEGMENT) * SMALL_SEGMENT
            if self.limit and self.reserved + whole > self.limit:
                self._return()
            block = self.at[self.end] = Block(whole, self.end, pool)
            self.end += whole
            self.reserved += whole
            self.most = max(self.most, self.reserved)
        left = block.size - size
        if left >= ROUND if pool[1] else left > SMALL:
            rest = self.at[block.address + size] = Block(left, block.address + size, pool)
            rest.before, rest.after = block, block.after
            if block.after:
                block.after.before = rest
            block.after, block.size = rest, size
            self._offer(rest)
        block.free = False
        self.blocks.setdefault(thing, []).append(block)
        self.allocated += block.size
        self.peak = max(self.peak, self.allocated)

    def give(self, thing: object) -> None:
        """All pieces back; nothing for what was never taken."""
        self.leave(thing)
        for block in self.left.pop(thing, ()):
            for side in (block.before, block.after):
                if side is not None and side.free:
                    self._withdraw(side)
                    first, second = (side, block) if side is block.before else (block, side)
                    first.size += second.size
                    first.after = second.after
                    if second.after:
                        second.after.before = first
                    del self.at[second.address]
                    block = first
            self._offer(block)

    def leave(self, thing: object) -> None:
        """All pieces out of use, and not to be used again before ``give``: another stream may still be at work on them."""
        for block in self.blocks.get(thing, ()):
            self.allocated -= block.size
        self.left.setdefault(thing, []).extend(self.blocks.pop(thing, ()))

    def _return(self) -> None:
        for free in self.frees.values():
            for size, address in tuple(free):
                block = self.at[address]
                if block.before is None and block.after is None:
                    free.remove((size, address))
                    del self.at[address]
                    self.reserved -= size

    def _offer(self, block: Block) -> None:
        block.free = True
        insort(self.frees[block.pool], (block.size, block.address))

    def _withdraw(self, block: Block) -> None:
        free = self.frees[block.pool]
        free.pop(bisect_left(free, (block.size, block.address)))
