"""Growth and pruning inside `model.fit`: a schedule, a call, and the logs."""
