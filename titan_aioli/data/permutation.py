"""Keyed permutations of any range, evaluated at single points: no table, no generator that lives on.

The n-th row of a group must be an unpredictable but fixed sequence, for stores of 10^9 sequences and after
a resume at any row. A shuffled index table costs 8 bytes a sequence and must be rebuilt on resume; a keyed
bijection costs nothing but arithmetic on the points asked for. It is a 6-round Feistel network on the
smallest even number of bits that holds the range; a value that falls outside is encrypted again until it
falls inside ("cycle walking": fewer than 4 tries on average, since the range fills over a quarter).

Everything is vectorised over points with their own ranges and keys, in uint64 arithmetic modulo 2^64.
"""

import numpy as np

NUM_ROUNDS = 6
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


def mix(values: np.ndarray) -> np.ndarray:
    """A uint64 hash of every uint64 value, any shape.

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood 2014, OOPSLA).
    """
    values = values + _GOLDEN
    values = (values ^ (values >> _SHIFTS[0])) * _MULTIPLY_1
    values = (values ^ (values >> _SHIFTS[1])) * _MULTIPLY_2
    return values ^ (values >> _SHIFTS[2])


def make_key(*parts: "int | np.ndarray") -> np.ndarray:
    """One uint64 key from integers or integer arrays (broadcast), order-sensitive."""
    key = np.zeros(1, dtype=np.uint64)
    for part in parts:
        if isinstance(part, int):
            part = np.array([part % 2**64], dtype=np.uint64)
        key = mix(key ^ part.astype(np.uint64))
    return key


def permute(points: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The image of every point under the permutation of range(size) that its key selects.

    Args:
        points: [N] int64, 0 <= points < sizes.
        sizes: [N] int64 (or one number in an array of shape [1]), at least 1.
        keys: [N] uint64 (or [1]); equal keys and sizes give the same permutation.
    Returns: [N] int64, a bijection of range(size) for each (size, key).
    """
    images = points.astype(np.uint64)
    limits = sizes.astype(np.uint64)
    half_bits = (_bit_length(limits - np.uint64(1)) + np.uint64(1)) // np.uint64(2)
    images = _feistel(images, half_bits, keys)
    outside = np.flatnonzero(images >= limits)
    while len(outside):
        images[outside] = _feistel(images[outside], _at(half_bits, outside), _at(keys, outside))
        outside = outside[images[outside] >= _at(limits, outside)]
    return images.astype(np.int64)


def _at(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The values of some points; one value stands for all."""
    return values if len(values) == 1 else values[points]


def _bit_length(values: np.ndarray) -> np.ndarray:
    """Bits needed for each value below 2^52, as uint64; exact since float64 holds such values."""
    return np.frexp(values.astype(np.float64))[1].astype(np.uint64)


def _feistel(values: np.ndarray, half_bits: np.ndarray, keys: np.ndarray) -> np.ndarray:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & mask
    for _ in range(NUM_ROUNDS):
        keys = keys + _GOLDEN
        left, right = right, left ^ (mix(right ^ keys) & mask)
    return (left << half_bits) | right
