"""A change, a process and its background duties: what HTTP and jobs both stand on."""
