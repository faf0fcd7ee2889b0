"""HTTP to addresses that users name."""
