"""The client, synchronous: generated from the asynchronous one, apart from `backend`."""
