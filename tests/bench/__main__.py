"""`make bench`: every figure beside its peer or limit, from this run. `python -m tests.bench stop` runs one."""

from __future__ import annotations

import os
import sys

from tests.bench.harness import machine, own_server


def main(names: list[str]) -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    os.environ["TAILRACE_JOB_MODULES"] = "tests.bench.jobs"
    with own_server():
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        from tests.bench import engine

        known = {measure.__name__: measure for measure in engine.ALL}
        if unknown := set(names) - set(known):
            sys.exit(f"There is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}.")
        print(machine(), flush=True)
        print(
            f"workers: {engine.WORKERS}; instances a run: {engine.INSTANCES}; "
            f"median of {engine.RUNS} runs (all in brackets)"
        )
        missed = 0
        for name in names or known:
            for figure in known[name]():
                missed += not figure.holds
                print(
                    f"{'ok    ' if figure.holds else 'MISSED'}  {figure.name}: {figure.ours}; {figure.against}",
                    flush=True,
                )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
