"""What a LoRA's layer adds to a weight: small factors, in one of three ways to multiply them out,
or all of the difference.

`LowRank`: up @ down, with a third factor between them for a convolution in Tucker's form (Hu et
al., arXiv 2106.09685; LoCon). `Hadamard`: two such products, multiplied number by number (LoHa;
Hyeon-Woo et al., arXiv 2108.06098). `Kronecker`: each number of one matrix times the whole of
another, either of which may be a product itself (LoKr). `Difference`: what was trained as a whole
(LyCORIS' "full", and its normalisations). All but the first, and the names of their factors, are
LyCORIS' (Yeh et al., arXiv 2309.14859); PEFT writes the same products.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from export.errors import SourceError
from export.tensor_file import TensorFile, shown

__all__ = ["Difference", "Hadamard", "Kronecker", "LowRank", "Product", "Shape", "kind_of"]

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]  # role -> shape
Factor = NDArray[np.float32]
Factors = Mapping[str, Factor]
PARTS = {
    "lokr_w1": ("lokr_w1_a", "lokr_w1_b"),
    "lokr_w2": ("lokr_w2_a", "lokr_w2_b", "lokr_t2"),
}
EMPTY = "one of its factors is empty"


@dataclass(frozen=True, kw_only=True, slots=True)
class Product(ABC):
    """One addition to one weight of `shape`. keys: role -> the factor's key in `source`."""

    source: TensorFile
    keys: Mapping[str, str]
    scale: float
    shape: Shape

    roles: ClassVar[tuple[str, ...]]  # in the order in which messages name them

    def delta(self, stored: NDArray[np.floating]) -> NDArray[np.float32]:  # noqa: ARG002
        """Read the factors and multiply them: f32 in the weight's shape, whatever is stored.

        Raises SourceError when the file cannot be read or the product is not finite.
        """
        factors = {role: self.source.read(key) for role, key in self.keys.items()}
        with np.errstate(over="ignore", invalid="ignore"):  # looked at below
            whole = self._whole(factors).reshape(self.shape) * np.float32(self.scale)
        if not np.isfinite(whole).all():
            raise SourceError(
                f"the factors of '{shown(next(iter(self.keys.values())))}' in"
                f" {self.source.file.name} multiply to NaN or Inf"
            )
        return whole

    @staticmethod
    @abstractmethod
    def lacking(roles: Mapping[str, object]) -> str:
        """Name the first factor that is missing beside `roles`, or nothing."""

    @staticmethod
    @abstractmethod
    def rank(shapes: Shapes) -> int | None:
        """Give the rank that alpha is divided by; None where no factor shows one."""

    @staticmethod
    @abstractmethod
    def width(shapes: Shapes) -> int | None:
        """Give how wide the input of the linear layer is that it is for."""

    @staticmethod
    @abstractmethod
    def misfit(shapes: Shapes, name: str, whole: Shape) -> str:
        """Say in a few words why the factors do not make the weight `name`, or nothing."""

    @staticmethod
    @abstractmethod
    def _whole(factors: Factors) -> Factor:
        """Multiply them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRank(Product):
    """up @ down, or up @ mid @ down for a convolution."""

    roles = ("up", "mid", "down")

    @staticmethod
    def lacking(roles: Mapping[str, object]) -> str:
        """As `Product.lacking`."""
        return _first_missing(roles, "up", "down")

    @staticmethod
    def rank(shapes: Shapes) -> int | None:
        """As `Product.rank`."""
        return shapes["down"][0]

    @staticmethod
    def width(shapes: Shapes) -> int | None:
        """As `Product.width`."""
        return shapes["down"][1] if len(shapes["down"]) == 2 else None

    @staticmethod
    def misfit(shapes: Shapes, name: str, whole: Shape) -> str:
        """As `Product.misfit`."""
        down, core = shapes["down"], shapes.get("mid")
        rank = down[0] if down else 0
        if rank == 0:
            return "its rank is 0"
        inner = core[0] if core else rank
        needed = {"up": (whole[0], inner), "down": (rank, *whole[1:])}
        if core is not None:
            if len(whole) != 4:
                return f"{name} is no convolution, but there is a middle factor"
            needed = {
                "up": (whole[0], inner),
                "mid": (inner, rank, *whole[2:]),
                "down": (rank, whole[1]),
            }
        if all(_squeezed(shapes[role]) == _squeezed(each) for role, each in needed.items()):
            return ""
        return _do_not_make([shapes[role] for role in needed], name, whole)

    @staticmethod
    def _whole(factors: Factors) -> Factor:
        up, down = factors["up"], factors["down"]
        left = up.reshape(len(up), -1)  # (out, p)
        right = down.reshape(len(down), -1)  # (rank, in * kernel), or (rank, in) beside a core
        if "mid" in factors:
            return np.einsum("op,pqhw,qi->oihw", left, factors["mid"], right, optimize=True)
        return left @ right


@dataclass(frozen=True, kw_only=True, slots=True)
class Hadamard(Product):
    """(w1_a @ w1_b) * (w2_a @ w2_b); with t1 and t2 each is a convolution in Tucker's form."""

    roles = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")

    @staticmethod
    def lacking(roles: Mapping[str, object]) -> str:
        """As `Product.lacking`."""
        cores = ("hada_t1", "hada_t2") if {"hada_t1", "hada_t2"} & roles.keys() else ()
        return _first_missing(roles, "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", *cores)

    @staticmethod
    def rank(shapes: Shapes) -> int | None:
        """As `Product.rank`."""
        return shapes["hada_w1_b"][0]

    @staticmethod
    def width(shapes: Shapes) -> int | None:
        """As `Product.width`."""
        right = shapes["hada_w1_b"]
        return right[1] if len(right) == 2 and "hada_t1" not in shapes else None

    @staticmethod
    def misfit(shapes: Shapes, name: str, whole: Shape) -> str:
        """As `Product.misfit`."""
        if any(0 in shape for shape in shapes.values()):
            return EMPTY
        for number in ("1", "2"):
            core = shapes.get(f"hada_t{number}")
            left, right = shapes[f"hada_w{number}_a"], shapes[f"hada_w{number}_b"]
            if not _fills(_made(left, right, core), whole):
                return _do_not_make([left, *([core] if core else []), right], name, whole)
        return ""

    @staticmethod
    def _whole(factors: Factors) -> Factor:
        one, two = (
            _pair(
                factors[f"hada_w{each}_a"], factors[f"hada_w{each}_b"], factors.get(f"hada_t{each}")
            )
            for each in ("1", "2")
        )
        return one * two


@dataclass(frozen=True, kw_only=True, slots=True)
class Kronecker(Product):
    """w1 (x) w2, where w1 may be w1_a @ w1_b, and w2 be w2_a @ w2_b or in Tucker's form with t2."""

    roles = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")

    @staticmethod
    def lacking(roles: Mapping[str, object]) -> str:
        """As `Product.lacking`."""
        needed = [
            name
            for side in ("lokr_w1", "lokr_w2")
            for name in ((side,) if side in roles else (f"{side}_a", f"{side}_b"))
        ]
        return _first_missing(roles, *needed)

    @staticmethod
    def rank(shapes: Shapes) -> int | None:
        """As `Product.rank`."""
        for side in ("lokr_w2", "lokr_w1"):
            if side not in shapes:
                return shapes[f"{side}_b"][0]
        return None

    @staticmethod
    def width(shapes: Shapes) -> int | None:
        """As `Product.width`."""
        if "lokr_t2" in shapes:
            return None
        sides = [shapes[side if side in shapes else f"{side}_b"] for side in ("lokr_w1", "lokr_w2")]
        return sides[0][1] * sides[1][1] if all(len(each) == 2 for each in sides) else None

    @staticmethod
    def misfit(shapes: Shapes, name: str, whole: Shape) -> str:
        """As `Product.misfit`."""
        if any(0 in shape for shape in shapes.values()):
            return EMPTY
        for side, parts in PARTS.items():
            if side in shapes and (twice := [part for part in parts if part in shapes]):
                return f"it has {side} and {twice[0]}, which say the same"
        one, two = (
            shapes[side]
            if side in shapes
            else _made(shapes[f"{side}_a"], shapes[f"{side}_b"], core)
            for side, core in (("lokr_w1", None), ("lokr_w2", shapes.get("lokr_t2")))
        )
        if one is None or two is None or len(one) != 2 or len(two) not in {2, 4}:
            return _do_not_make(list(shapes.values()), name, whole)
        made = (one[0] * two[0], one[1] * two[1], *two[2:])
        return "" if _fills(made, whole) else _do_not_make(list(shapes.values()), name, whole)

    @staticmethod
    def _whole(factors: Factors) -> Factor:
        one, two = (
            factors[side]
            if side in factors
            else _pair(factors[f"{side}_a"], factors[f"{side}_b"], core)
            for side, core in (("lokr_w1", None), ("lokr_w2", factors.get("lokr_t2")))
        )
        # Rows of a convolution lie flat: its kernel's places are the last ones either way.
        return np.kron(one, two.reshape(len(two), -1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference(Product):
    """All of it, as it is."""

    roles = ("diff",)

    @staticmethod
    def lacking(roles: Mapping[str, object]) -> str:
        """As `Product.lacking`."""
        return _first_missing(roles, "diff")

    @staticmethod
    def rank(shapes: Shapes) -> int | None:  # noqa: ARG004
        """As `Product.rank`."""
        return None

    @staticmethod
    def width(shapes: Shapes) -> int | None:
        """As `Product.width`."""
        return shapes["diff"][1] if len(shapes["diff"]) == 2 else None

    @staticmethod
    def misfit(shapes: Shapes, name: str, whole: Shape) -> str:
        """As `Product.misfit`."""
        if 0 in shapes["diff"]:
            return "it is empty"
        made = shapes["diff"]
        return "" if _fills(made, whole) else f"{list(made)} is not {name}'s {list(whole)}"

    @staticmethod
    def _whole(factors: Factors) -> Factor:
        return factors["diff"]


KINDS: tuple[type[Product], ...] = (LowRank, Hadamard, Kronecker, Difference)


def kind_of(roles: Mapping[str, object]) -> type[Product] | None:
    """Give the kind that has all of these roles; None when they are of several kinds."""
    return next((kind for kind in KINDS if roles.keys() <= {*kind.roles}), None)


def _first_missing(roles: Mapping[str, object], *needed: str) -> str:
    return next((role for role in needed if role not in roles), "")


def _squeezed(shape: Shape) -> Shape:
    # A linear layer and a 1 x 1 convolution are the same numbers, and trainers write either.
    return shape[:2] if shape[2:] == (1, 1) else shape


def _made(left: Shape, right: Shape, core: Shape | None) -> Shape | None:
    """Give the shape that two factors make, with a core in Tucker's form: it lies the other way.

    None where they do not go together.
    """
    if len(left) != 2 or len(right) != 2 or (core is not None and len(core) != 4):
        return None
    if core is None:
        return (left[0], right[1]) if left[1] == right[0] else None
    return (left[1], right[1], *core[2:]) if core[:2] == (left[0], right[0]) else None


def _fills(made: Shape | None, whole: Shape) -> bool:
    """Say whether a product has a weight's rows and columns; a convolution's may lie flat."""
    if made is None:
        return False
    return _squeezed(made) == _squeezed(whole) or made == (whole[0], math.prod(whole[1:]))


def _pair(left: Factor, right: Factor, core: Factor | None) -> Factor:
    if core is None:
        return left @ right
    return np.einsum("pqhw,po,qi->oihw", core, left, right, optimize=True)


def _do_not_make(shapes: list[Shape], name: str, whole: Shape) -> str:
    factors = " and ".join(str(list(shape)) for shape in shapes)
    return f"{factors} do not make {name}'s {list(whole)}"
