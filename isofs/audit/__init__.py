"""The audit trail: who did what, in order, in files that tell when they were changed. Nothing here knows the engine."""
