"""Functions of functions: gradients, Jacobians, modules as functions, maps over batches."""

from gradlite.func.batching import vmap
from gradlite.func.jacobians import hessian, jacfwd, jacrev
from gradlite.func.modules import functional_call, stack_module_state
from gradlite.func.transforms import grad, grad_and_value, jvp, vjp

__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "stack_module_state",
    "vjp",
    "vmap",
]
