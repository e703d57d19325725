"""Tools for modules and parameters."""

from gradlite.nn.utils import rnn
from gradlite.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters
from gradlite.nn.utils.weight_norm import remove_weight_norm, weight_norm

__all__ = [
    "parameters_to_vector",
    "remove_weight_norm",
    "rnn",
    "vector_to_parameters",
    "weight_norm",
]
