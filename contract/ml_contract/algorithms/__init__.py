"""What our training images take: hyperparameters with their limits, metrics with their names.

Standard library only: the images read these tables too.
"""
