"""How good a model is at every missing rate: metrics, floors and the robustness grid. Pure; selects nothing."""
