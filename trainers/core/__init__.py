"""Pure tensor functions: schedule, parameterization, advantages, weights and the loss. Imports torch only."""
