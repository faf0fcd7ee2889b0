"""The transactional outbox and those who read it."""
