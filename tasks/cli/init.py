"""Placeholder until written."""
from tasks.cli.console import Answer
def init() -> Answer:
    """x."""
    return Answer({}, [])
