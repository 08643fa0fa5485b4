#!/usr/bin/env python3
"""``mla-linearize`` from a checkout that is not installed."""

from mla_fairseq.cli.linearize import build_parser, main  # noqa: F401 -- tests of the documents take the parser

if __name__ == "__main__":
    main()
