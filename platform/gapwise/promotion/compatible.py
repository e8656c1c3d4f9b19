"""Would the rows that callers send today still be answered by another model? Pure."""

from gapwise.data.shape import DataShape, ModalityShape, TokenShape


def what_changed(serving: DataShape, asking: DataShape) -> str:
    """What `serving` answers and `asking` would refuse or read otherwise, in words; empty where there is nothing."""
    if (serving.task, serving.classes) != (asking.task, asking.classes):
        return f"it answers {_answers(asking)}, not {_answers(serving)}"
    found = [_of(name, one, asking.modalities.get(name)) for name, one in sorted(serving.modalities.items())]
    return "; ".join(one for one in found if one)


def _answers(shape: DataShape) -> str:
    return f"one of {shape.classes} classes" if shape.task == "classification" else "a score"


def _of(name: str, serving: ModalityShape, asking: ModalityShape | None) -> str:
    if asking is None:
        return f"no {name}"
    if serving.tokens is None or asking.tokens is None:
        if serving.tokens is not asking.tokens:
            return f"{name} as {'frames' if asking.tokens is None else 'token ids'}"
    elif _ids(serving.tokens) != _ids(asking.tokens):
        return f"{name} in another tokenizer's ids"
    if serving.dim != asking.dim:
        return f"{asking.dim} features a frame of {name}, not {serving.dim}"
    if serving.max_length > asking.max_length:
        return f"at most {asking.max_length} frames of {name}, not {serving.max_length}"
    return ""


def _ids(tokens: TokenShape) -> tuple[int | None, ...]:
    """What can be known of a tokenizer by its ids alone."""
    return tokens.vocabulary, tokens.unknown, tokens.opening, tokens.closing
