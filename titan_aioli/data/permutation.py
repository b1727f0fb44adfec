"""Keyed permutations of any range, evaluated at single points: no table, no random generator with state.

The n-th row of a group must be an unpredictable but fixed sequence, for stores of 10^9 sequences and after
a resume at any row. A shuffled index table costs 8 bytes per sequence and must be rebuilt on resume; a keyed
bijection costs only arithmetic on the points asked for. It is a 6-round Feistel network on the smallest even
number of bits that holds the range; a value outside the range is encrypted again until it falls inside
("cycle walking": fewer than 4 tries on average, since the range fills over a quarter of the values).

Every point has its own range and key; the arithmetic is that of uint64, modulo 2^64.
"""

import numpy as np

from titan_aioli.data.compiled import compiled

NUM_ROUNDS = 6
_ONE = np.uint64(1)
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

    def broadcast(values: np.ndarray, dtype: type) -> np.ndarray:
        return np.array(np.broadcast_to(values, len(points)), dtype)

    return _permute(broadcast(points, np.int64), broadcast(sizes, np.int64), broadcast(keys, np.uint64))


_mix_one = compiled(mix)


@compiled
def _permute(points, sizes, keys):
    images = np.empty(len(points), np.int64)
    for index in range(len(points)):
        size, half_bits = np.uint64(sizes[index]), np.uint64(0)
        while (size - _ONE) >> (half_bits + half_bits):
            half_bits += _ONE
        image = _feistel(np.uint64(points[index]), half_bits, keys[index])
        while image >= size:
            image = _feistel(image, half_bits, keys[index])
        images[index] = image
    return images


@compiled
def _feistel(value, half_bits, key):
    mask = (_ONE << half_bits) - _ONE
    left, right = value >> half_bits, value & mask
    for _ in range(NUM_ROUNDS):
        key = key + _GOLDEN
        left, right = right, left ^ (_mix_one(right ^ key) & mask)
    return (left << half_bits) | right
