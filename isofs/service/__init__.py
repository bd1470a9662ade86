"""The service: the only place that wires the parts together. `start` mounts, `check` looks at a store at rest."""

from isofs.service.daemon import check, start

__all__ = ["check", "start"]
