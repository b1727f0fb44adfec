"""Evaluation mode of a model, and back to what each of its modules was in."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def evaluation_mode(models: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Inside the block every module evaluates; after it those that were training train, and no other."""
    models = list(models)
    training = [module for model in models for module in model.modules() if module.training]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
