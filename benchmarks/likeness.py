"""How like two pictures are: PSNR, and SSIM (Wang et al., IEEE TIP 13 (4), 2004)."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["EQUAL", "psnr", "ssim"]

UInt8 = NDArray[np.uint8]
Float64 = NDArray[np.float64]

PEAK = 255.0
EQUAL = 200.0  # dB, for equal pictures, as in parity reports
# The paper's: an 11 x 11 Gaussian window of 1.5 pixels, and what keeps dark and flat places stable.
WINDOW, DEVIATION = 11, 1.5
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
LUMA = np.array((0.299, 0.587, 0.114))  # ITU-R BT.601


def psnr(one: UInt8, other: UInt8) -> float:
    """Give the peak signal-to-noise ratio of two pictures uint8[H, W, 3] in dB."""
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return EQUAL if error == 0.0 else float(10.0 * np.log10(PEAK**2 / error))


def ssim(one: UInt8, other: UInt8) -> float:
    """Give the mean structural similarity of two pictures' luma, 1 for equal ones.

    one, other: uint8[H, W, 3], of at least 11 pixels a side; windows lie wholly inside.
    """
    x, y = one.astype(np.float64) @ LUMA, other.astype(np.float64) @ LUMA
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x = _blurred(x * x) - mean_x**2
    variance_y = _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    likeness = ((2 * mean_x * mean_y + C1) * (2 * covariance + C2)) / (
        (mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2)
    )
    return float(likeness.mean())


def _blurred(plane: Float64) -> Float64:
    """Average with the window: f64[H, W] -> f64[H - 10, W - 10]."""
    places = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(places**2) / (2 * DEVIATION**2))
    weights /= weights.sum()
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(plane, WINDOW, axis=axis)
        plane = windows @ weights
    return plane
