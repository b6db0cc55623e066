"""What runs when: one file a DAG; its docstring is what Airflow's UI shows about it."""
