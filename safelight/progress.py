"""Progress for people: a live bar on a terminal, a plain line now and then elsewhere."""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from safelight.console import note, to_people

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from engine import Step

__all__ = ["DownloadProgress", "PictureProgress", "StageProgress"]

EVERY = 1.0  # seconds between plain lines
WIDTH = 24  # characters of the plain bar


class _Bar:
    """One measured job: rich's bar on a terminal, else plain lines on standard error."""

    def __init__(self, total: float) -> None:
        self._total = total
        self._start = self._said = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        console = to_people()
        if console.is_terminal:
            from rich import progress as parts

            self._progress = parts.Progress(
                parts.TextColumn("{task.description}"),
                parts.BarColumn(),
                parts.TaskProgressColumn(),
                parts.TimeElapsedColumn(),
                parts.TextColumn("left"),
                parts.TimeRemainingColumn(),
                console=console,
            )
            self._progress.start()
            self._task = self._progress.add_task("starting", total=self._total)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, done: float, text: str) -> None:
        """Set how far the job is, in units of the total, and what it is doing."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, description=text)
            return
        now = time.monotonic()
        if done < self._total and now - self._said < EVERY:
            return
        self._said = now
        share = min(done / self._total, 1.0) if self._total else 1.0
        bar = "#" * round(share * WIDTH)
        left = (now - self._start) * (1 - share) / share if share > 0 else 0.0
        note(f"[{bar:<{WIDTH}}] {share:4.0%}  {text}  {left:.0f} s left")


class PictureProgress(_Bar):
    """Follow a run of pictures by its network evaluations, of several at once where so many are
    in hand.
    """

    def __init__(self, pictures: int) -> None:
        super().__init__(pictures)
        self._finished = 0
        self._hands: dict[int, float] = {}  # picture in hand -> how much of it is drawn

    def step(self, event: "Step") -> None:
        """Show a step of the picture that is being made."""
        # A picture counts as whole only when it is sealed, so the last step stays just below.
        self._hands[event.picture] = 0.98 * (event.index + 1) / event.count
        done = self._finished + sum(self._hands.values())
        self.show(done, f"picture {self._finished + 1} of {self._total:g}")

    def picture(self) -> None:
        """Show that the picture is finished."""
        self._reach(self._finished + 1)
        self.show(self._finished, f"{self._finished} of {self._total:g} pictures")

    def reach(self, pictures: int) -> None:
        """Show that so many pictures lie behind, made or not."""
        self._reach(pictures)
        self.show(pictures, f"{pictures} of {self._total:g} pictures")

    def _reach(self, pictures: int) -> None:
        self._finished = pictures
        self._hands = {each: part for each, part in self._hands.items() if each >= pictures}


class StageProgress(_Bar):
    """Follow a job that names its stages and says how far it is in all."""

    def __init__(self) -> None:
        super().__init__(1.0)

    def stage(self, name: str, fraction: float) -> None:
        """Show the stage and the whole job's fraction, 0 to 1."""
        self.show(fraction, name)


class DownloadProgress(_Bar):
    """Follow a download by its bytes."""

    def show_bytes(self, name: str, done: int) -> None:
        """Show the file that is being fetched and how many bytes of the whole there are."""
        self.show(done, f"{name}, {done / 1e6:.1f} of {self._total / 1e6:.1f} MB")
