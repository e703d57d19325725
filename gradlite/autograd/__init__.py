"""Differentiation beyond ``Tensor.backward``: grad, Function, gradcheck, functional."""

from gradlite.autograd import functional, grad_mode, graph
from gradlite.autograd.anomaly import detect_anomaly, set_detect_anomaly
from gradlite.autograd.backward import backward, grad
from gradlite.autograd.function import Function
from gradlite.autograd.gradcheck import gradcheck, gradgradcheck
from gradlite.autograd.saved import SavedTensor
from gradlite.autograd.variable import Variable
from gradlite.grad_mode import enable_grad, inference_mode, no_grad, set_grad_enabled

__all__ = [
    "Function",
    "SavedTensor",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "functional",
    "grad",
    "grad_mode",
    "gradcheck",
    "gradgradcheck",
    "graph",
    "inference_mode",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]
