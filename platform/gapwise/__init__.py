"""gapwise: experiments with multimodal models that must keep working when modalities go missing.

Importing the package has no side effect and pulls in no heavy library; see the layer table in README.
"""

__version__ = "0.1.0"
