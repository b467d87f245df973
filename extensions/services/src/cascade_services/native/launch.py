"""Become a server: as another user where root is refused, and for as long as is asked.

`python launch.py OWNER USER PID_FILE COMMAND…`: a program of its own, because a function between fork and exec is not
safe in a process with threads. The server holds the lock of PID_FILE as long as it lives, so that everybody can tell
whether it runs, and as which process. With an OWNER it ends when that process ends. With 0 it stays: this program ends
as soon as the server is one, with status 75 when another process holds the lock.
"""

import fcntl
import os
import pwd
import select
import signal
import sys

_RUNS_ALREADY = 75


def main() -> None:
    """Read the command line, and become what it names."""
    owner, user, pid_file, *command = sys.argv[1:]
    stays = owner == "0"
    busy = _go_on_in_a_child() if stays else -1
    if not _register(pid_file):
        if stays:
            os.write(busy, b"!")
        sys.exit(_RUNS_ALREADY)
    if not stays:
        _watch(int(owner))
    if user:
        account = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    os.execvp(command[0], command)


def _go_on_in_a_child() -> int:
    """Leave the parent's session; return where the child tells its parent that it cannot be the server."""
    told, tell = os.pipe()  # closed by exec, too
    if os.fork():
        os.close(tell)
        sys.exit(_RUNS_ALREADY if os.read(told, 1) else 0)
    os.close(told)
    os.setsid()
    return tell


def _register(pid_file: str) -> bool:
    """Take the file's lock for the rest of this process's life, and that of what it starts, and say who it is."""
    held = os.open(pid_file, os.O_RDWR | os.O_CREAT, 0o644)
    os.set_inheritable(held, True)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    os.ftruncate(held, 0)
    os.write(held, str(os.getpid()).encode())
    return True


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
