"""Many trials in one process as one batched program (horizontally fused training, Wang et al., MLSys 2021)."""
