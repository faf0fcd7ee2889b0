"""The client, asynchronous: written by hand, and the source of the synchronous one."""
