"""What the DAG files are made of: the trigger form, a task of each step, the report."""
