"""Become a server: end when the process that asked for it ends, and be another user where root is refused.

`python launch.py PARENT USER COMMAND…`: a program of its own, because a function between fork and exec is not safe
in a process with threads.
"""

import ctypes
import os
import pwd
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, user, *command = sys.argv[1:]
    if user:
        account = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    # After the change of user, which would forget it. Also after kill -9 of the parent.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit("The process that asked for this server has ended.")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
