"""UniPC: a multistep predictor whose step is corrected once the next prediction is known."""

import math

import numpy as np
from numpy.typing import NDArray

from engine.samplers.row import Options, Row
from engine.samplers.table import Schedule

__all__ = ["unipc"]

Float64 = NDArray[np.float64]


def unipc(schedule: Schedule, options: Options) -> list[Row]:
    """UniPC-p in B(h) form, data prediction: arXiv 2302.04867, algorithms 5 and 7.

    The network looks at the predicted x, the next prediction starts from the corrected one. Both
    come from the same earlier x with the same factor, so corrected = predicted + a combination of
    predictions, and one row holds it: x' = ratio * (x + C - P_earlier) + P.
    """
    sigmas, count = schedule.sigmas, len(schedule.timesteps)
    rows = list[Row]()
    earlier, order = np.zeros(0), 0  # what the last predictor added, and its order
    for step in range(count):
        corrected = np.zeros(options.order + 1)
        if step > 0:
            weights = _weights(sigmas[: step + 1], order, options.solver, corrector=True)
            corrected[: len(weights)] = weights
            corrected[1 : 1 + len(earlier)] -= earlier
        room = count - step if options.lower_order_final else options.order
        if sigmas[step + 1] == 0.0:
            room = 1  # log sigma is infinite there: only the first order has a limit
        order = min(options.order, room, step + 1)
        earlier = _weights(sigmas[: step + 2], order, options.solver, corrector=False)
        ratio = float(sigmas[step + 1] / sigmas[step])
        denoised = ratio * corrected
        denoised[: len(earlier)] += earlier
        rows.append(
            Row(
                step=step,
                sigma=float(sigmas[step]),
                timestep=float(schedule.timesteps[step]),
                x=(ratio,),
                denoised=tuple(denoised.tolist()),
            )
        )
    return rows


def _weights(sigmas: Float64, order: int, solver: str, *, corrector: bool) -> Float64:
    """Weigh the predictions in the step that ends at sigmas[-1], the newest prediction first.

    sigmas: every level up to the end of the step. Predictor: weights of the predictions at
    sigmas[-2], sigmas[-3], ...; corrector: the same with the one at sigmas[-1] before them.
    """
    end, start = float(sigmas[-1]), float(sigmas[-2])
    h = math.log(start / end) if end else math.inf
    if h == 0.0:
        return np.zeros(order + corrector)
    base = math.expm1(-h)  # h * phi_1, in the paper's words
    scale = -h if solver == "bh1" else base  # B(h)
    ratios = np.array([math.log(start / s) / h for s in sigmas[-3 : -2 - order : -1]])
    points = np.append(ratios, 1.0) if corrector else ratios
    rhos = _solve(points, h, scale)
    weights = np.zeros(order + corrector)
    origin = int(corrector)  # where the prediction at the start of the step stands
    weights[origin] = -base  # the first-order step
    for k, (rho, point) in enumerate(zip(rhos, points, strict=True)):
        # scale * rho * (prediction at the point - prediction at the start) / point
        where = 0 if corrector and k == len(points) - 1 else k + 1 + origin
        weights[where] -= scale * rho / point
        weights[origin] += scale * rho / point
    return weights


def _solve(points: Float64, h: float, scale: float) -> Float64:
    """Solve the Vandermonde system R rho = b; the lowest order has the paper's closed form, 1/2."""
    count = len(points)
    if count <= 1:
        return np.full(count, 0.5)
    phi, factorial = math.expm1(-h) / -h - 1.0, 1
    b = list[float]()
    for k in range(1, count + 1):
        b.append(phi * factorial / scale)
        factorial *= k + 1
        phi = phi / -h - 1.0 / factorial
    rhos = np.linalg.solve(np.vander(points, increasing=True).T, np.array(b))
    return rhos.astype(np.float64)
