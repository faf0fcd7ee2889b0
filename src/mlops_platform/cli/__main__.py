"""`python -m mlops_platform.cli`: the command without its script."""

from mlops_platform.cli.main import main

main()
