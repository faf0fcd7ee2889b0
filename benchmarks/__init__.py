"""What the platform costs, beside what a bare server and the bare store cost, in one run."""
