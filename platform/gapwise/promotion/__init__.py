"""Champions by missing rate: which model serves which rate, and on what grounds.

The statistical gate, ledger and router are not here yet; what is asked of a winner today is said in every answer.
"""
