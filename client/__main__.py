"""`python -m client` is `fedvault-node`."""

from client.cli import main

if __name__ == "__main__":
    main()
