"""Become a server: end when the process that asked for it ends, and be another user where root is refused.

`python launch.py OWNER USER COMMAND…`: a program of its own, because a function between fork and exec is not safe
in a process with threads.
"""

import os
import pwd
import select
import signal
import sys


def main() -> None:
    owner, user, *command = sys.argv[1:]
    _watch(int(owner))
    if user:
        account = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    os.execvp(command[0], command)


def _watch(owner: int) -> None:
    """Leave a process behind that ends this one's group once the owner has ended, also by kill -9.

    Not the kernel's PR_SET_PDEATHSIG: it belongs to a thread, and Trino's launcher may start Java from another one.
    """
    server = os.getpid()
    if os.fork():
        os.wait()
        return
    if os.fork():
        os._exit(0)  # so that the server has no child that it knows nothing of
    try:
        select.select([os.pidfd_open(process) for process in (owner, server)], [], [])
    finally:
        os.killpg(server, signal.SIGKILL)


if __name__ == "__main__":
    main()
