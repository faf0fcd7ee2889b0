"""`/api/platform/...`: identity, audit and events, on all five services."""
