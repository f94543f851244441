"""`make bench`: every figure beside its peer or limit, from this run. `python -m tests.bench stop` runs one.

`--keep` keeps the records that `pages` looks at, which take minutes to make, for the next time.
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.bench.harness import defaults_in_database, interrupt_once, machine, own_server, run_apart

ENGINE = (
    *("throughput", "lateness", "stop", "killed_worker"),
    *("hop", "wide", "generation_of_cycles", "readiness"),
    *("planning", "generating", "drafting"),
)
# Millions of records are not what the engine's figures are about, nor is any work what an idle installation
# costs: each of these has a server of its own.
PAGES = "pages"
IDLE = "idle"
APART = (IDLE, PAGES)


def main(names: list[str], *, keep: bool) -> int:
    """Run what is named, everything without a name; the exit code says whether all figures hold."""
    missed = 0
    if len(names) == 1 and names[0] in APART:
        return 1 if run(names, keep=keep and names == [PAGES]) else 0
    if engine := [name for name in names or ENGINE if name not in APART]:
        missed += run(engine)
    for name in APART:
        if not names or name in names:
            # The settings take their database from the environment once for each process.
            missed += run_apart([name, *(["--keep"] if keep else [])])
    return 1 if missed else 0


def run(names: list[str], *, keep: bool = False) -> int:
    """Run figures on a server of their own; how many do not hold."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    os.environ["TAILRACE_JOB_MODULES"] = "tests.bench.jobs"
    with own_server(kept=keep):
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        defaults_in_database()
        from tests.bench import cycles, engine, idle, pages, rerun_pages, reruns

        print(machine(), flush=True)
        if names[0] not in APART:
            print(
                f"workers: {engine.WORKERS}; instances a run: {engine.INSTANCES}; "
                f"median of {engine.RUNS} runs (all in brackets)"
            )
        missed = 0
        for measure in (
            each
            for each in (*engine.ALL, *cycles.ALL, *reruns.ALL, rerun_pages.drafting, *idle.ALL, pages.pages)
            if each.__name__ in names
        ):
            for figure in measure():
                missed += not figure.holds
                print(
                    f"{'ok    ' if figure.holds else 'MISSED'}  {figure.name}: {figure.ours}; {figure.against}",
                    flush=True,
                )
    return missed


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join((*ENGINE, *APART)))
    parser.add_argument("--keep", action="store_true", help="keep the records of pages under TAILRACE_VAR")
    given = parser.parse_args()
    if unknown := set(given.names) - {*ENGINE, *APART}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join((*ENGINE, *APART))}")
    return given


if __name__ == "__main__":
    given = arguments()
    interrupt_once()
    try:
        sys.exit(main(given.names, keep=given.keep))
    except KeyboardInterrupt:
        sys.exit(130)
