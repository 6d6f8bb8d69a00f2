"""How sharp the loss is where a run ended: worst case within a ball, and the Hessian's spectrum."""
