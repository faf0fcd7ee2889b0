"""Training code that records itself: what `platform.tracking.autolog()` switches on."""
