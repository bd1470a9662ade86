"""The demo: two people share a tree, one is isolated and cleared, a third is isolated and thrown out.

Whatever it says with a tick is checked, by hashes of whole trees, at that moment; the first thing that
isn't so ends it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time

from chapters import Demo
from stage import Person, Stage, Trouble, gone, person, stage
from telling import ClaimFailed, Teller


def main() -> int:
    """Tell the story. The exit code: 0 if all of it was so."""
    teller = Teller()
    began = time.monotonic()
    people: list[Person] = []
    play: Stage | None = None
    try:
        with stage() as play, contextlib.ExitStack() as cast:
            teller.title("isofs: isolate a suspicious user of a shared directory, and decide about them later")
            people += [cast.enter_context(person(play, name)) for name in ("alice", "bob", "mallory")]
            Demo(teller, play, *people).play()
        teller.claim("no mount, process, user or file of this demo is left on the machine", gone(play, people))
    except ClaimFailed as failed:
        print(f"\nFAILED: this is not so: {failed}", file=sys.stderr)
        return 1
    except (Trouble, subprocess.TimeoutExpired) as trouble:
        print(f"\nFAILED: {trouble}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    teller.title(f"All {teller.claims} claims hold; {time.monotonic() - began:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
