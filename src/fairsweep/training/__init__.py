"""What trains: data, models and the training loop. Knows nothing of records, tracking or terminals."""
