"""What the five apps share."""
