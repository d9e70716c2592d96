"""What others read of a workload: editors, people, the functions that labellers work with."""
