"""How like two pictures are, against numbers that can be had by hand."""

import numpy as np
import pytest

from benchmarks.likeness import EQUAL, WINDOW, psnr, ssim


def flat(value, side=16):
    return np.full((side, side, 3), value, dtype=np.uint8)


def test_equal_pictures_are_alike():
    picture = np.random.default_rng(1).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    assert psnr(picture, picture.copy()) == EQUAL
    assert ssim(picture, picture.copy()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("one", "other"), [(100, 110), (0, 255), (255, 0)])
def test_of_flat_pictures_the_formulas_can_be_written_down(one, other):
    """Nothing varies, so that SSIM is its first factor."""
    assert psnr(flat(one), flat(other)) == pytest.approx(20 * np.log10(255 / abs(one - other)))
    c1 = (0.01 * 255) ** 2
    wanted = (2 * one * other + c1) / (one**2 + other**2 + c1)
    assert ssim(flat(one), flat(other)) == pytest.approx(wanted, abs=1e-9)


def test_one_window_is_the_papers_formula_with_its_weights():
    draw = np.random.default_rng(2)
    x, y = draw.integers(0, 256, (2, WINDOW, WINDOW)).astype(np.float64)
    grid = np.arange(WINDOW) - 5
    weights = np.exp(-(grid[:, None] ** 2 + grid[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
    covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
    variances = [(weights * (p - m) ** 2).sum() for p, m in ((x, mean_x), (y, mean_y))]
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    wanted = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    wanted /= (mean_x**2 + mean_y**2 + c1) * (sum(variances) + c2)
    grey = [np.repeat(p.astype(np.uint8)[..., None], 3, axis=2) for p in (x, y)]
    assert ssim(*grey) == pytest.approx(wanted, abs=1e-9)
    assert wanted < 0.5  # two noises are not alike
