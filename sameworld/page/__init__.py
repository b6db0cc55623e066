"""The report page: a run's ``report.json`` as one self-contained HTML document."""
