"""Write once, name by content: artifacts, the log, promotions, on a folder or on S3."""
