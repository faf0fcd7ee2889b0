"""`mlops demo`: the platform's main job on real measurements."""
