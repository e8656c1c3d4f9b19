"""PROMISE, PRLF and the late-fusion baseline, on blocks that `torch.func.vmap` can batch over trials.

PROMISE and PRLF are this project's reconstructions from public summaries of the papers, not the authors' code.
"""
