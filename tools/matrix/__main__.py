"""`python -m tools.matrix`: which control works with which family."""

from tools.matrix import main

main()
