"""Makes pictures one job after another while other things go on: a sealed queue and its runner."""

from safelight.workshop.feed import Feed, Listener
from safelight.workshop.job import Job, State
from safelight.workshop.order import Order
from safelight.workshop.pipelines import Pipelines
from safelight.workshop.queue import Workshop

__all__ = ["Feed", "Job", "Listener", "Order", "Pipelines", "State", "Workshop"]
