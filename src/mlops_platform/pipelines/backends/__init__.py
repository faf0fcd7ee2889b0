"""What runs user code: processes on this machine."""
