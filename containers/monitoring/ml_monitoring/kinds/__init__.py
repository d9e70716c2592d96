"""What can be judged: a module each, whose function returns an outcome or raises UnjudgedError."""
