"""Champions by missing rate: which model serves which rate, and on what grounds.

Studies' candidates go before the gate (`promote`); decisions are entries in a ledger (`chain`, `standing`), and aliases
follow it.
"""
