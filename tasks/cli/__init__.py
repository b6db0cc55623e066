"""The ``sameworld`` command."""
