"""Jobs that the tests of kinds run, some of them in processes of their own."""

import os
import subprocess
import sys
import time

from scheduling.jobs import JobContext, JobFailed, job


@job
def nothing(context: JobContext) -> None:
    pass


@job
def describes_itself(context: JobContext) -> dict[str, object]:
    print("printed")
    print("complained", file=sys.stderr)
    sys.stdout.buffer.write(b"raw \xff\n")
    context.logger.warning("logged %s", context.parameters)
    return {"shard": (context.shard_index, context.shard_count), "day": context.data_date.isoformat()}


@job
def raises(context: JobContext) -> None:
    raise ValueError(f"no flights for {context.data_date}")


@job
def gives_up(context: JobContext) -> None:
    raise JobFailed("the source is empty", exit_code=7, result={"rows": 0})


@job
def returns(context: JobContext) -> object:
    return {
        "object": object(),
        "nan": float("nan"),
        "large": "x" * 70_000,
        "nul": "a\0b",
        "half a character": "\ud800",
    }[context.parameters["what"]]


@job
def leaves(context: JobContext) -> None:
    sys.exit(context.parameters["code"])


@job
def waits(context: JobContext) -> None:
    context.sleep(60)


@job
def leaves_a_child(context: JobContext) -> int:
    return os.spawnvp(os.P_NOWAIT, "sleep", ["sleep", "300"])  # noqa: S606


@job(isolated=True)
def isolated(context: JobContext) -> dict[str, object]:
    print("printed in a process of its own")
    subprocess.run(["echo", "from a program"], check=True)
    context.logger.info("logged")
    return {"cycle": str(context.cycle_time), "zone": str(context.cycle_time.tzinfo), "task": context.task}


@job(isolated=True)
def isolated_raises(context: JobContext) -> None:
    raise KeyError("carrier")


@job(isolated=True)
def isolated_dies(context: JobContext) -> None:
    os._exit(9)


@job(isolated=True)
def isolated_blocks(context: JobContext) -> None:
    try:
        # Inside: whoever reads it may stop the job before the next line.
        print("blocking", flush=True)
        time.sleep(300)
    finally:
        print("tidied up")


@job(name="tests.renamed")
def named(context: JobContext) -> str:
    return "renamed"
