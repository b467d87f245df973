"""The process of dbt: its own command line, little work for the garbage collector, and our reader of seeds.

Importing dbt and PyIceberg makes a million objects that all stay. Python looks through them again and again, and once
more at the end of the process: a third of the CPU time of a run of a small project.
"""

import atexit
import gc
import os
import threading
import time

__all__ = ["end_with_parent", "main", "prepare"]


def prepare() -> None:
    """Do what each process of dbt does first: its imports."""
    gc.set_threshold(10_000, 10, 10)  # 700 by default; it begins before dbt is imported
    from dbt_common.clients import agate_helper

    from cascade_dbt import seeds

    agate_helper.from_csv = seeds.read


def end_with_parent() -> None:
    """Let this process end within a second of the one that started it.

    When that is killed, dbt may wait for ever: a thread of it could not print, and the others wait for its result.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Run the command line of dbt with the arguments of this process."""
    end_with_parent()
    prepare()
    atexit.register(gc.freeze)  # what is left goes with the process
    from dbt.cli.main import cli

    cli(prog_name="dbt")


if __name__ == "__main__":
    main()
