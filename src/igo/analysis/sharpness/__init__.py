"""Sharpness of the loss where a run ended: worst case in a ball, and the Hessian's spectrum."""
