"""Runs jobs one after another in the calling process: to debug, and where one device does everything."""

from collections.abc import Sequence

from archsearch.search.executors.base import Job, QueuedExecutor, Work, answer


class SerialExecutor(QueuedExecutor[Job]):
    """`wait` runs the next job to its end, whatever its timeout. A job that kills its process kills the search.

    KeyboardInterrupt passes through `wait` and leaves the job under way.
    """

    def __init__(self, work: Work) -> None:
        super().__init__(work, workers=1)

    def _start(self, job: Job) -> Job:
        return job

    def _ended(self, handles: Sequence[Job], timeout_seconds: float | None) -> Sequence[Job]:
        return handles

    def _answer(self, handle: Job) -> str:
        return answer(self.work, handle.text, lambda line: self._lines.append((handle.key, line)))

    def _place(self, handle: Job) -> str:
        return "here"

    def _stop(self, handles: Sequence[Job]) -> None:
        """Nothing runs outside `wait`."""
