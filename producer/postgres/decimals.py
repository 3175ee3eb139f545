"""PostgreSQL's numerics, many at once: digits of base 10,000 to two's complement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from producer.change import Array
from producer.postgres.chunk import Chunk

NARROW_DIGITS: Final = 18
"""So many decimal digits fit 64 bits."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numerics of one precision and scale.

    digits: of each number those of one weight, from the highest weight of the type to the lowest, so that the sum needs
    no power of ten but the last. cut: what the last of them is to be divided by, to leave the type's scale.
    bad: those that the type cannot hold, NaN and infinity among them; their digits are 0.
    """

    digits: list[Array]
    cut: int
    negative: Array
    bad: Array

    @classmethod
    def at(cls, chunk: Chunk, start: Array, precision: int, scale: int) -> Numbers:
        """The values that begin at the given places."""
        count = chunk.i2[start].astype(np.int64)
        weight = chunk.i2[start + 2].astype(np.int64)
        sign = chunk.i2[start + 4].astype(np.int64) & 0xFFFF
        shown = chunk.i2[start + 6].astype(np.int64)
        fractions = -(-scale // 4)
        wholes = -(-(precision - scale) // 4)
        bad = (sign & 0x8000 != 0) | (shown != scale) | ((count > 0) & (weight >= wholes))
        digits = []
        for power in range(wholes - 1, -fractions - 1, -1):
            place = weight - power
            there = (place >= 0) & (place < count) & ~bad
            digits.append(np.where(there, chunk.i2[start + 8 + 2 * np.where(there, place, 0)], 0).astype(np.int64))
        return cls(digits, 10 ** (4 * fractions - scale), sign == 0x4000, bad)

    def narrow(self) -> tuple[Array, Array]:
        """Of at most NARROW_DIGITS: int64s, and how many bytes of each are needed."""
        value = np.zeros(len(self.bad), np.int64)
        for digit in self.digits[:-1]:
            value = value * 10_000 + digit
        if self.digits:
            value = value * (10_000 // self.cut) + self.digits[-1] // self.cut
        size = np.ones(len(value), np.int64)
        for bits in range(7, 63, 8):
            size += value >= 1 << bits
        return np.where(self.negative, -value, value), size

    def wide(self) -> tuple[list[Array], Array]:
        """Of up to 38 digits: four limbs of 32 bits, the lowest first, and how many bytes of each are needed."""
        limbs = [np.zeros(len(self.bad), np.uint64) for _ in range(4)]
        for place, digit in enumerate(self.digits):
            last = place == len(self.digits) - 1
            carry = (digit // self.cut if last else digit).astype(np.uint64)
            factor = np.uint64(10_000 // self.cut if last else 10_000)
            for limb in range(4):
                total = limbs[limb] * factor + carry
                limbs[limb] = total & np.uint64(0xFFFFFFFF)
                carry = total >> np.uint64(32)
        size = np.ones(len(self.bad), np.int64)
        for bits in range(7, 127, 8):
            high, shift = divmod(bits, 32)
            size += ((limbs[high] >> np.uint64(shift)) != 0) | _any_above(limbs, high)
        borrow = self.negative.astype(np.uint64)
        for limb in range(4):
            flipped = np.where(self.negative, limbs[limb] ^ np.uint64(0xFFFFFFFF), limbs[limb]) + borrow
            limbs[limb] = flipped & np.uint64(0xFFFFFFFF)
            borrow = flipped >> np.uint64(32)
        return limbs, size


def _any_above(limbs: list[Array], high: int) -> Array:
    above = np.zeros(len(limbs[0]), np.bool_)
    for limb in limbs[high + 1 :]:
        above |= limb != 0
    return above
