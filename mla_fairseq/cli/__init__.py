"""The console scripts: each module parses a command line, calls the package and reports."""
