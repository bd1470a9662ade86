"""What the tests of the engine have in common: a kernel, a host directory and a model to compare."""
