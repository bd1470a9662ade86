"""How the daemon runs."""

from __future__ import annotations

from dataclasses import dataclass

from isofs.settings.kinds import choice, setting


@dataclass(frozen=True)
class Service:
    """How the daemon runs."""

    log: str = setting(choice("info", "debug", "warning", "error"), "what is logged: this, and what is worse")
