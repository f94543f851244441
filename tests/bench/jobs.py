"""What the benchmarks run."""

from scheduling.jobs import JobContext, job


@job(name="noop")
def noop(_context: JobContext) -> None:
    """Our no-op instance."""


def peer_noop() -> None:
    """The peer's no-op task."""
