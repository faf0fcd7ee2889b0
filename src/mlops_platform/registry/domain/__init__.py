"""Rules of the Model Registry. Pure: no database, no clock."""
