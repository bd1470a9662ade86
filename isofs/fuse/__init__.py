"""FUSE: the only package that knows pyfuse3. It translates; the rules are the engine's."""
