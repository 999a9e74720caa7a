"""Writes the methodology as a document to standard output."""

import sys

from omen_server.domain.methodology import markdown

if __name__ == "__main__":
    sys.stdout.write(markdown())
