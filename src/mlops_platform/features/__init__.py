"""Feature Store: definitions, point-in-time training sets, online serving."""
