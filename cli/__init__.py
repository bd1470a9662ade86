"""isoctl: the command of isofs. `main` is the program; every command is in a module of its own."""
