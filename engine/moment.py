"""Where in a trajectory the network is asked: what prompts, guidance and controls may depend on."""

from typing import NamedTuple

__all__ = ["Moment"]


class Moment(NamedTuple):
    """One evaluation of the network, a row of the table.

    row: of the table. step: that it belongs to, of `steps` (both count from 0 and within the
    table). sigma: noise level. timestep: 0 to 999, may be broken.
    """

    row: int
    step: int
    steps: int
    sigma: float
    timestep: float

    @property
    def fraction(self) -> float:
        """Give how much of the trajectory is done before this step, 0 to below 1."""
        return self.step / self.steps
