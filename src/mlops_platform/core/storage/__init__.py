"""Content-addressed, encrypted blobs."""
