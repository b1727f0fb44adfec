"""What a finished run reports: the content of `results.json`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from titan_aioli.runs.updates import Targets


def result(
    method: str,
    names: Sequence[str],
    step: int,
    validation: np.ndarray | None,
    test: np.ndarray | None,
    epochs: np.ndarray,
    num_tokens: int,
) -> dict[str, Any]:
    """What a finished run reports; losses in nats per token, in the order of the groups.

    `perplexity` is exp(mean over the groups of the test loss), the metric of the Aioli paper.
    """
    content = {
        "method": method,
        "groups": list(names),
        "step": step,
        "tokens": num_tokens,
        "epochs": epochs,
    }
    if validation is not None:
        content.update(validation_loss=validation, validation_loss_mean=float(np.mean(validation)))
    if test is not None:
        mean = float(np.mean(test))
        content.update(test_loss=test, test_loss_mean=mean, perplexity=float(np.exp(mean)))
    return content


def target_result(targets: Targets, validation: np.ndarray, test: np.ndarray | None) -> dict[str, Any]:
    """What a finished run reports of its targets: losses [K] in nats per token, the objective in its unit.

    Args:
        targets: of the run.
        validation, test: [K], losses of the targets.
    """
    content = {
        "targets": list(targets.names),
        "target_shares": targets.shares(),
        "unit": targets.unit,
        "target_validation_loss": validation,
        "objective": targets.objective.value(validation),
    }
    if test is not None:
        content.update(target_test_loss=test, test_objective=targets.objective.value(test))
    return content
