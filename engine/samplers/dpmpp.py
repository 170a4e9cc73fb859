"""DPM-Solver++, multistep: of second order as an ODE and as an SDE, of third as an SDE."""

import math

from engine.samplers.row import Options, Row
from engine.samplers.table import Schedule

__all__ = ["dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde"]


def dpmpp_2m(schedule: Schedule, options: Options) -> list[Row]:
    """DPM-Solver++(2M): arXiv 2211.01095, algorithm 2."""
    return _multistep(schedule, options, eta=0.0)


def dpmpp_2m_sde(schedule: Schedule, options: Options) -> list[Row]:
    """SDE-DPM-Solver++(2M): arXiv 2211.01095, appendix on the SDE; eta after k-diffusion."""
    return _multistep(schedule, options, eta=options.eta)


def _multistep(schedule: Schedule, options: Options, *, eta: float) -> list[Row]:
    """Integrate exactly in log sigma what a line through the last two predictions gives.

    With h = log(sigma / sigma') and k = h * (1 + eta):
    x' = exp(-k) * x + (1 - exp(-k)) * D0 + slope * D1 + sigma' * sqrt(1 - exp(-2 eta h)) * noise,
    where D1 = (denoised - earlier denoised) * h / h_earlier. The slope is (1 - exp(-k)) / 2
    (midpoint), or 1 - (1 - exp(-k)) / k (heun).
    """
    sigmas, count = schedule.sigmas, len(schedule.timesteps)
    few = count + schedule.earlier < 15  # diffusers' "few steps", of those that were asked for
    rows = list[Row]()
    h_earlier = 0.0
    for step in range(count):
        sigma, sigma_next = float(sigmas[step]), float(sigmas[step + 1])
        h = math.log(sigma / sigma_next) if sigma_next else math.inf
        k = h * (1.0 + eta)
        gain = -math.expm1(-k)
        last = step == count - 1
        first_order = (
            step == 0
            or options.order == 1
            or (last and (options.euler_at_final or sigma_next == 0.0))
            or (last and options.lower_order_final and few)
        )
        slope = 0.0
        if not first_order and h > 0.0:
            slope = (1.0 - gain / k if options.solver == "heun" else gain / 2) * h / h_earlier
        spread = math.sqrt(-math.expm1(-2.0 * eta * h)) if eta else 0.0
        rows.append(
            Row(
                step=step,
                sigma=sigma,
                timestep=float(schedule.timesteps[step]),
                x=(math.exp(-k),),
                denoised=(gain,) if first_order else (gain + slope, -slope),
                noise=sigma_next * spread * options.s_noise,
            )
        )
        h_earlier = h
    return rows


def dpmpp_3m_sde(schedule: Schedule, options: Options) -> list[Row]:
    """SDE-DPM-Solver++ with a parabola through three predictions: k-diffusion's DPM++ 3M SDE.

    h and k as in `_multistep`; the slope and the bend of the predictions over h are weighted by
    phi_2 = 1 - (1 - exp(-k)) / k and phi_3 = phi_2 / k - 1/2.
    """
    sigmas, count = schedule.sigmas, len(schedule.timesteps)
    rows, lengths = list[Row](), list[float]()  # the newest length first
    for step in range(count):
        sigma, sigma_next = float(sigmas[step]), float(sigmas[step + 1])
        h = math.log(sigma / sigma_next) if sigma_next else math.inf
        k = h * (1.0 + options.eta)
        gain = -math.expm1(-k)
        denoised = [gain, 0.0, 0.0]
        if sigma_next and h and lengths:
            phi_2 = 1.0 - gain / k
            last = h / lengths[0]  # a difference of predictions times this is their slope over h
            slope = [last, -last, 0.0]
            if len(lengths) > 1:
                before = h / lengths[1]
                bend = [last, -last - before, before]
                whole = lengths[0] / h + lengths[1] / h
                phi_3 = phi_2 / k - 0.5
                share = phi_2 * lengths[0] / h / whole - phi_3 / whole
                slope = [phi_2 * s + share * b for s, b in zip(slope, bend, strict=True)]
            else:
                slope = [phi_2 * each for each in slope]
            denoised = [d + s for d, s in zip(denoised, slope, strict=True)]
        spread = math.sqrt(-math.expm1(-2.0 * options.eta * h)) if options.eta else 0.0
        rows.append(
            Row(
                step=step,
                sigma=sigma,
                timestep=float(schedule.timesteps[step]),
                x=(math.exp(-k),),
                denoised=tuple(denoised),
                noise=sigma_next * spread * options.s_noise,
            )
        )
        lengths = [h, *lengths[:1]]
    return rows
