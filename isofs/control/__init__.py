"""How `isoctl` and the daemon of a mount talk: JSON lines on a Unix socket that admits only root.

`wire` says what a line may be, `results` what each call answers, `client` and `server` are the two
ends, `endpoint` is the socket between them, `mounts` tells which mounts there are, and `holders`
who keeps one busy. Nothing is imported here, so that a command doesn't load the server.
"""
