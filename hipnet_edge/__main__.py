"""`python -m hipnet_edge` is the `hipnet-edge` command, where no script is on the path."""

from hipnet_edge.cli import main

if __name__ == "__main__":
    main()
