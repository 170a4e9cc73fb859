"""A weight taken apart into direction and length (DoRA; Liu et al., arXiv 2402.09353).

A product turns the weight's columns or rows, and a magnitude says how long each is afterwards.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.errors import SourceError
from export.products import Product, Shape
from export.tensor_file import shown

__all__ = ["Decomposed", "axis_of"]

EPSILON = np.finfo(np.float32).eps  # of a column of zeros, which has no direction


@dataclass(frozen=True, kw_only=True, slots=True)
class Decomposed:
    """magnitude * (weight + product) / its length, beside a product of the same weight.

    magnitude: its key in the product's file. axis: 0 where it has one number an output, 1 an input.
    scale: how much of the way from the stored weight to this one; the product's own is alpha's.
    """

    product: Product
    magnitude: str
    axis: int
    scale: float

    def delta(self, stored: NDArray[np.floating]) -> NDArray[np.float32]:
        """Give the difference to `stored`, in its shape. Raises SourceError as the product's."""
        product = self.product
        weight = stored.astype(np.float32)
        turned = weight + product.delta(stored).reshape(weight.shape)
        others = tuple(each for each in range(turned.ndim) if each != self.axis)
        with np.errstate(over="ignore", invalid="ignore"):  # looked at below
            length = np.sqrt((turned**2).sum(axis=others, keepdims=True)) + EPSILON
            magnitude = product.source.read(self.magnitude).reshape(length.shape)
            whole = (turned * (magnitude / length) - weight) * np.float32(self.scale)
        if not (np.isfinite(whole).all() and np.isfinite(length).all()):
            raise SourceError(
                f"'{shown(self.magnitude)}' in {product.source.file.name} makes NaN or Inf"
            )
        return whole


def axis_of(role: str, magnitude: Shape, whole: Shape) -> int | None:
    """Give the axis of a weight that its magnitude runs along, or None where it does not fit.

    role: `magnitude` as PEFT has it, always one number an output; `dora_scale` as LyCORIS and
    OneTrainer write it, of which the shape says what it runs along.
    """
    size = math.prod(magnitude)
    if max(magnitude, default=1) != size or len(whole) < 2:
        return None  # no vector, or no matrix
    if size == whole[0] and (role == "magnitude" or magnitude[:1] == whole[:1]):
        return 0
    return 1 if role == "dora_scale" and magnitude[:2] == (1, whole[1]) else None
