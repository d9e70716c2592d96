"""What holds between blocks; ``checks.workload`` runs them all."""
