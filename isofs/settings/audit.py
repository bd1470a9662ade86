"""The audit trail: what is recorded, and how long it is kept."""

from __future__ import annotations

from dataclasses import dataclass

from isofs.settings.kinds import choice, duration, setting, size


@dataclass(frozen=True)
class Audit:
    """What is recorded, and how long it is kept."""

    on: str = setting(
        choice("writes", "suspects", "off"),
        "what is recorded: writes (changes of everyone, and all that suspects open), suspects (theirs alone) or off",
    )
    file_size: int = setting(size("64 MiB"), "bytes after which another file of the audit trail is begun")
    file_age: int = setting(duration("1 d"), "time after which another file of the audit trail is begun")
    keep: int = setting(duration("365 d"), "time after which a full file of the audit trail is removed")
    total: int = setting(size("4 GiB"), "bytes (compressed) that full files of the audit trail may take")
