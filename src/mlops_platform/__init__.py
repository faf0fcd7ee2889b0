"""An MLOps platform: five services over one core."""
