"""The service: the only place that wires the parts together. `starting` mounts, `resting` checks a store at rest."""
