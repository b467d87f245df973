"""The process of dbt: its own command line, little work for the garbage collector, and our reader of seeds.

Importing dbt and PyIceberg makes a million objects that all stay. Python looks through them again and again, and once
more at the end of the process: a third of the CPU time of a run of a small project.
"""

import atexit
import gc

__all__ = ["main"]


def main() -> None:
    """Run the command line of dbt with the arguments of this process."""
    gc.set_threshold(10_000, 10, 10)  # 700 by default; it begins before dbt is imported
    atexit.register(gc.freeze)  # what is left goes with the process
    from dbt.cli.main import cli
    from dbt_common.clients import agate_helper

    from cascade_dbt import seeds

    agate_helper.from_csv = seeds.read
    cli(prog_name="dbt")


if __name__ == "__main__":
    main()
