"""Optimizers that need more of a model than its parameters."""

from pytorch_optimizer import Muon
from torch import nn

from fairsweep.config import ConfigError


def muon(
    model: nn.Module,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    adamw_lr: float,
    adamw_betas: tuple[float, float],
    adamw_wd: float,
) -> Muon:
    """Muon for the hidden matrices, AdamW for the rest: biases, norms, the first and the last layer.

    Convolutions count as matrices, of (output, input x kernel). See Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon/.

    Raises:
        ConfigError: the model has no hidden matrix.
    """
    matrices = [one for one in model.parameters() if one.requires_grad and one.ndim > 1]
    hidden = matrices[1:-1]
    if not hidden:
        raise ConfigError(
            f"optimizer=muon: the model has {len(matrices)} layers with weights, none of them hidden; "
            "use a deeper model or another optimizer"
        )
    chosen = {id(one) for one in hidden}
    rest = [one for one in model.parameters() if one.requires_grad and id(one) not in chosen]
    parameters = [{"params": hidden, "use_muon": True}, {"params": rest, "use_muon": False}]
    return Muon(
        parameters,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        adamw_lr=adamw_lr,
        adamw_betas=adamw_betas,
        adamw_wd=adamw_wd,
    )
