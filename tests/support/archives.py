"""What is in evidence archives, read by other means than isofs's own."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import zstandard


def unpacked(path: Path) -> dict[str, bytes]:
    """The members of an archive by name."""
    with path.open("rb") as file:
        plain = zstandard.ZstdDecompressor().stream_reader(file).read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def manifest(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(unpacked(path)["manifest.json"])
    return found


def contents(path: Path) -> dict[str | None, bytes]:
    """The contents of an archive by the paths that they had in the suspect's view."""
    members = unpacked(path)
    versions = json.loads(members["manifest.json"])["versions"]
    return {v["path"]: members[v["content"]["member"]] for v in versions if v["content"] is not None}
