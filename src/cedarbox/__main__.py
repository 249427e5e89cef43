"""``python -m cedarbox``."""

from cedarbox.cli import main

if __name__ == "__main__":
    main()
