"""The command 'mlops'."""
