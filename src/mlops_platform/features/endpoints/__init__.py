"""HTTP of the Feature Store: path, permission, contract in, contract out."""
