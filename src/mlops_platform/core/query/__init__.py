"""The search language: parser and tree, no SQL."""
