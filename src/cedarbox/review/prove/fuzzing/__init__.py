"""The encoder held against Cedar: random policies and requests, decided by both."""
