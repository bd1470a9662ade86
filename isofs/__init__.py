"""isofs: a FUSE file system that isolates people instead of locking them out."""
