"""Reads a large directory, the current one, again and again while others change it.

What is there all the time (`stays-0`, `stays-1`, ..., as many as the argument says) must be told once each time. Given
to `python3 -c`, since users of the measurement need not be able to read this file.
"""

from __future__ import annotations

import os
import signal
import sys

PASSES = 5
CHANGERS = 2
#: Names that each changer has there at a time, beside those that stay.
KEPT = 500


def change(who: int) -> None:
    """Create, rename, save and remove, for ever."""
    number = 0
    while True:
        os.close(os.open(f"new-{who}-{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        os.rename(f"new-{who}-{number}", f"moved-{who}-{number}")
        os.close(os.open(f"saved-{who}~", os.O_WRONLY | os.O_CREAT, 0o644))
        os.rename(f"saved-{who}~", f"saved-{who}")
        if number >= KEPT:
            os.unlink(f"moved-{who}-{number - KEPT}")
        number += 1


def started(who: int) -> int:
    pid = os.fork()
    if not pid:
        try:
            change(who)
        finally:
            os._exit(1)
    return pid


def main(count: int) -> int:
    """Read it, and print what was missed or told twice."""
    wrong = 0
    changers = [started(who) for who in range(CHANGERS)]
    for number in range(PASSES):
        with os.scandir() as entries:
            told = [entry.name for entry in entries if entry.name.startswith("stays-")]
        if len(told) != count or len(set(told)) != count:
            print(f"pass {number}: {len(told)} names were told, {len(set(told))} of {count}")
            wrong += 1
    for pid in changers:
        if os.waitpid(pid, os.WNOHANG)[0]:
            print("whoever changed it ended")
            wrong += 1
            continue
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
