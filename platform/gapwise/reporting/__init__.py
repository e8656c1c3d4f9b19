"""Pictures of results. (The HTML report comes with its own issue.)"""
