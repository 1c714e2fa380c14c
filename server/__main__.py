"""`python -m server` is `fedvault-server`."""

from server.cli import main

if __name__ == "__main__":
    main()
