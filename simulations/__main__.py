"""`python -m simulations` is `fedvault-sim`."""

from simulations.cli import main

if __name__ == "__main__":
    main()
