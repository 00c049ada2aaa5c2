"""`python -m mammolens` is `mammolens`."""

from mammolens.cli import main

main()
