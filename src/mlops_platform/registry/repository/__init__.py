"""Every SQL statement of the Model Registry."""
