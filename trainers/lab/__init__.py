"""The exact laboratory: a Gaussian mixture on which every estimator's target is known in closed form."""
