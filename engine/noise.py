"""Noise that equals torch's, value for value up to float rounding, without torch.

`torch` is torch.randn with a CPU generator: mt19937. `philox` is torch.randn on a CUDA device:
Philox-4x32-10, Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
Each source is one stream: the n-th call equals the n-th torch.randn with the same generator.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import RequestError, unknown_name

__all__ = ["NAMES", "PhiloxNoise", "TorchNoise", "noise_source", "turned"]

Float32 = NDArray[np.float32]
UInt32 = NDArray[np.uint32]
UInt64 = NDArray[np.uint64]

NAMES: Final = ("philox", "torch")
MAX_SEED: Final = 2**64 - 1
_ALIKE: Final = 0.9995  # mean cosine
_FLAT: Final = 1e-6  # sine of an angle that is none


def noise_source(name: str, seed: int) -> "PhiloxNoise | TorchNoise":
    """Open the stream of `name` at `seed`, 0 to 2**64 - 1; RequestError for anything else."""
    if not 0 <= seed <= MAX_SEED:
        raise RequestError(f"seed is {seed}; from 0 to 2**64 - 1 is allowed")
    if name == "torch":
        return TorchNoise(seed)
    if name == "philox":
        return PhiloxNoise(seed)
    raise unknown_name("noise", name, NAMES)


def turned(noise: Float32, other: Float32, strength: float) -> Float32:
    """Turn noise f32[1, 4, h, w] towards other noise: 0 leaves it, 1 is the other.

    Spherical interpolation, which keeps noise as long as noise is; of each column of latents by
    itself, as the AUTOMATIC1111 web interface's variation seeds have it, and straight where
    the two hardly differ.
    """
    lengths = [np.linalg.norm(each, axis=2, keepdims=True) for each in (noise, other)]
    cosine = np.sum(noise * other, axis=2, keepdims=True) / (lengths[0] * lengths[1])
    if float(cosine.mean()) > _ALIKE:
        return (noise + strength * (other - noise)).astype(np.float32)
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    whole = np.sin(angle)
    flat = whole < _FLAT  # one row of latents has no direction to turn in
    whole[flat] = 1.0
    share = (
        np.where(flat, 1.0 - strength, np.sin((1.0 - strength) * angle) / whole),
        np.where(flat, strength, np.sin(strength * angle) / whole),
    )
    return (share[0] * noise + share[1] * other).astype(np.float32)


class TorchNoise:
    """torch.randn with torch.Generator("cpu").manual_seed(seed); only 32 bits of the seed count."""

    def __init__(self, seed: int) -> None:
        """Start mt19937 as Matsumoto and Nishimura's init_genrand does."""
        key = np.empty(624, dtype=np.uint32)
        word = seed & 0xFFFFFFFF  # torch's engine takes these and drops the rest
        for i in range(624):
            key[i] = word
            word = (1812433253 * (word ^ (word >> 30)) + i + 1) & 0xFFFFFFFF
        self._bits = np.random.MT19937(0)
        self._bits.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": 624}}
        self._spare: float | None = None

    def normal(self, shape: tuple[int, ...]) -> Float32:
        """Draw f32[shape]. torch has two algorithms: 16 values and more come in blocks of 16."""
        count = math.prod(shape)
        flat = self._few(count) if count < 16 else self._blocks(count)
        return flat.reshape(shape)

    def _blocks(self, count: int) -> Float32:
        """Box-Muller in float32 over blocks of 8 radii and 8 angles; a short tail is drawn anew."""
        uniform = self._uniform(count)
        whole = count - count % 16
        values = np.empty(count, dtype=np.float32)
        values[:whole] = _box_muller_blocks(uniform[:whole])
        if whole < count:
            # the last 16 values, some of which exist already, are drawn over again
            values[-16:] = _box_muller_blocks(self._uniform(16))
        return values

    def _uniform(self, count: int) -> Float32:
        """Draw 24-bit uniforms in [0, 1)."""
        bits = self._bits.random_raw(count) & np.uint64(0xFFFFFF)
        return bits.astype(np.float32) * np.float32(2.0**-24)

    def _few(self, count: int) -> Float32:
        """Draw one by one: Box-Muller in float64, whose second value serves the next one asked."""
        values = np.empty(count, dtype=np.float32)
        for i in range(count):
            if self._spare is not None:
                values[i], self._spare = self._spare, None
                continue
            angle = 2.0 * math.pi * self._uniform64()
            radius = math.sqrt(-2.0 * math.log1p(-self._uniform64()))
            values[i] = radius * math.cos(angle)
            self._spare = radius * math.sin(angle)
        return values

    def _uniform64(self) -> float:
        high, low = (int(word) for word in self._bits.random_raw(2))
        return ((high << 32 | low) & (2**53 - 1)) * 2.0**-53


def _box_muller_blocks(uniform: Float32) -> Float32:
    """Turn f32[16 n] uniforms into normals; of 16 the first 8 give radii."""
    blocks = uniform.reshape(-1, 2, 8)
    radius = np.sqrt(np.float32(-2.0) * np.log(np.float32(1.0) - blocks[:, 0]))
    angle = np.float32(2.0 * math.pi) * blocks[:, 1]
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1).reshape(-1)


class PhiloxNoise:
    """torch.randn with torch.Generator("cuda").manual_seed(seed).

    A card draws value i in thread i as long as it has that many threads at once (from about
    43,000 on a small card), and in other places of the stream beyond; this source, like the
    programs that publish seeds made on cards, always does the former.
    """

    def __init__(self, seed: int) -> None:
        self._key = (seed & 0xFFFFFFFF, seed >> 32)
        self._offset = 0

    def normal(self, shape: tuple[int, ...]) -> Float32:
        """Draw f32[shape]: counter (call, 0, index, 0), then Box-Muller on the first two words."""
        count = math.prod(shape)
        index = np.arange(count, dtype=np.uint64)
        zero = np.zeros(count, dtype=np.uint64)
        words = _philox([zero + np.uint64(self._offset), zero, index, zero], self._key)
        self._offset += 1
        unit = np.float64(2.3283064e-10)  # curand's 2**-32, as its float constant
        u = words[0].astype(np.float64) * unit + unit / 2
        turn = unit * np.float64(6.2831855)
        v = words[1].astype(np.float64) * turn + turn / 2
        return (np.sqrt(-2.0 * np.log(u)) * np.sin(v)).astype(np.float32).reshape(shape)


def _philox(counter: list[UInt64], key: tuple[int, int]) -> list[UInt64]:
    """Mix four 32-bit counters (held in 64 bits) by ten rounds of Philox-4x32."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    for _ in range(10):
        a, b = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (b >> half) ^ c1 ^ np.uint64(k0),
            b & low,
            (a >> half) ^ c3 ^ np.uint64(k1),
            a & low,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [c0, c1, c2, c3]
