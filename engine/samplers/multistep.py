"""Linear multistep methods on the slope: LMS, PLMS (PNDM) and DEIS.

The slope is eps = (x - denoised) / sigma, of this evaluation and of earlier ones; x[j] is the input
of the evaluation j rows ago.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from engine.samplers.row import Options, Row
from engine.samplers.table import Schedule

__all__ = ["deis", "lms", "pndm"]

Float64 = NDArray[np.float64]

_LMS_ORDER: Final = 4  # k-diffusion's and diffusers' own
# Adams-Bashforth, the newest slope first: arXiv 2202.09778 equation 12 and those before it.
_ADAMS: Final = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def lms(schedule: Schedule, options: Options) -> list[Row]:  # noqa: ARG001 - one signature
    """Integrate the polynomial in sigma through the last four slopes: k-diffusion's LMS."""
    return _by_polynomials(schedule, [_LMS_ORDER] * len(schedule.timesteps), _in_sigma)


def deis(schedule: Schedule, options: Options) -> list[Row]:
    """Integrate it in log sigma instead: DEIS, arXiv 2204.13902 equation 15, its log-rho form."""
    count = len(schedule.timesteps)
    orders = [options.order] * count
    if options.lower_order_final and count + schedule.earlier < 15:  # diffusers' "few steps"
        orders = [min(order, count - step) for step, order in enumerate(orders)]
    return _by_polynomials(schedule, orders, _in_log_sigma)


def _by_polynomials(
    schedule: Schedule,
    orders: Sequence[int],
    integrals: Callable[[Float64, float], Float64],
) -> list[Row]:
    """Step by the integrals of the Lagrange polynomials of the last slopes."""
    sigmas = schedule.sigmas
    rows = list[Row]()
    for step, timestep in enumerate(schedule.timesteps):
        order = min(orders[step], step + 1)
        visited = sigmas[step - order + 1 : step + 1][::-1]  # the newest first
        weights = integrals(visited, float(sigmas[step + 1])) / visited
        x = weights.copy()
        x[0] += 1.0
        rows.append(
            Row(
                step=step,
                sigma=float(sigmas[step]),
                timestep=float(timestep),
                x=tuple(x.tolist()),
                denoised=tuple((-weights).tolist()),
            )
        )
    return rows


def _in_sigma(visited: Float64, target: float) -> Float64:
    """Integrate over sigma from visited[0] to target each polynomial in sigma."""
    integrals = [each.integ() for each in _lagrange(visited)]
    return np.array([each(target) - each(visited[0]) for each in integrals])


def _in_log_sigma(visited: Float64, target: float) -> Float64:
    """Integrate over sigma each polynomial in u = log(sigma / visited[0]).

    The integral of exp(u) * p(u) is exp(u) * (p - p' + p'' - ...), and exp(u) * visited[0] = sigma.
    """
    found = list[float]()
    end_u = math.log(target / visited[0]) if target else 0.0
    for polynomial in _lagrange(np.log(visited / visited[0])):
        total = polynomial
        for order in range(1, len(visited)):
            total = total + (-1) ** order * polynomial.deriv(order)
        # at sigma 0 the exponential beats every power of u
        values: Float64 = total(np.array([end_u, 0.0]))
        ends: Float64 = values * np.array([target, -float(visited[0])])
        found.append(float(ends.sum()))
    return np.array(found)


def _lagrange(at: Float64) -> list[Polynomial]:
    """Give for each point the polynomial that is 1 there and 0 at the others."""
    found = list[Polynomial]()
    for own in range(len(at)):
        others: Float64 = np.delete(at, own)
        product = Polynomial.fromroots(others) if len(others) else Polynomial([1.0])
        distances: Float64 = at[own] - others
        found.append(product / float(distances.prod()))
    return found


def pndm(schedule: Schedule, options: Options) -> list[Row]:
    """PLMS, arXiv 2202.09778 algorithm 2 without its Runge-Kutta start, as diffusers runs it.

    The first step is taken twice, the second time with the mean of both slopes. What is combined
    is the network's own prediction: for v it is turned into the slope after, at the latest latents.
    """
    sigmas, count = schedule.sigmas, len(schedule.timesteps)
    visits = [0, *([1] if count > 1 else []), *range(1, count)]
    kept = list[int]()  # the evaluations whose predictions later ones combine, the newest first
    rows = list[Row]()
    for row, step in enumerate(visits):
        again = row == 1
        if not again:
            kept = [row, *kept[:3]]
        start = 0 if again else step
        weights = {0: 0.5, 1: 0.5}  # age -> weight
        if not again:
            weights = {row - each: w for each, w in zip(kept, _ADAMS[len(kept) - 1], strict=True)}
        levels = {age: float(sigmas[visits[row - age]]) for age in weights}
        x, denoised = _slope(weights, levels, float(sigmas[start]), options.prediction_type)
        length = float(sigmas[start + 1] - sigmas[start])
        x, denoised = length * x, length * denoised
        if options.prediction_type == "v_prediction":
            x[int(again)] += length * sigmas[start] / (sigmas[start] ** 2 + 1.0)
        x[int(again)] += 1.0
        rows.append(
            Row(
                step=start,
                sigma=float(sigmas[step]),
                timestep=float(schedule.timesteps[step]),
                x=tuple(x.tolist()),
                denoised=tuple(denoised.tolist()),
            )
        )
    return rows


def _slope(
    weights: Mapping[int, float], levels: Mapping[int, float], start: float, prediction_type: str
) -> tuple[Float64, Float64]:
    """Combine predictions to a slope: coefficients of x and of denoised, by age.

    eps = (x - denoised) / sigma. With root = sqrt(sigma**2 + 1), v = (eps - sigma * denoised) /
    root, and the slope is v / root plus sigma / root**2 * x, which the caller adds.
    """
    x, denoised = np.zeros(max(weights) + 1), np.zeros(max(weights) + 1)
    for age, weight in weights.items():
        sigma = levels[age]
        x[age], denoised[age] = weight / sigma, -weight / sigma
        if prediction_type == "v_prediction":
            root = math.sqrt(sigma**2 + 1.0)
            x[age] /= root
            denoised[age] = (denoised[age] - weight * sigma) / root
    if prediction_type == "v_prediction":
        outer = math.sqrt(start**2 + 1.0)
        return x / outer, denoised / outer
    return x, denoised
