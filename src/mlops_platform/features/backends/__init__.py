"""The outside that is not SQL: online stores, columnar files, the join engine."""
