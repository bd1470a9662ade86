"""What the operator can set, in the store's `config.toml`: a frozen dataclass for each table, read with reasons."""
