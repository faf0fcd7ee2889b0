"""HTTP of the Model Registry: path, permission, contract in, contract out."""
